"""Times an array of tasks in HyperQueue: server and workers are started before the clock is."""

import os
import sys
import tempfile
import time

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig

tasks, workers = int(sys.argv[1]), int(sys.argv[2])
with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    with LocalCluster(directory) as cluster:
        for _ in range(workers):
            cluster.start_worker(WorkerConfig(cores=1))
        client = cluster.client()
        job = Job()
        for _ in range(tasks):
            job.program(["true"], stdout=None, stderr=None)
        time.sleep(0.5)
        begun = time.monotonic()
        submitted = client.submit(job)
        client.wait_for_jobs([submitted])
        print(f"took {time.monotonic() - begun:.6f}", flush=True)
    os.chdir("/")
