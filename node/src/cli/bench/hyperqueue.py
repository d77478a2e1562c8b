"""Times work in HyperQueue: server and workers are started before the clock is.

Arguments: mode, count, workers, cores of each. Modes: `array` (one job of so many `true`), `sleep` (of so many `sleep 1`), `single`
(so many jobs of one `true`, each waited for before the next), `together` (the same, submitted one after the other, waited for at
the end), `idle` (prints the process ids of the cluster, which is in this process, and waits for the end of its input).
"""

import os
import sys
import tempfile
import time

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig


def job_of(command, count):
    job = Job()
    for _ in range(count):
        job.program(command, stdout=None, stderr=None)
    return job


def descendants(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry)] + descendants(int(entry))
    return found


mode, count, workers, cores = sys.argv[1], *map(int, sys.argv[2:5])
with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    with LocalCluster(directory) as cluster:
        for _ in range(workers):
            cluster.start_worker(WorkerConfig(cores=cores))
        client = cluster.client()
        jobs = {
            "array": lambda: [job_of(["true"], count)],
            "sleep": lambda: [job_of(["sleep", "1"], count)],
            "single": lambda: [job_of(["true"], 1) for _ in range(count)],
            "together": lambda: [job_of(["true"], 1) for _ in range(count)],
            "idle": lambda: [],
        }[mode]()
        time.sleep(0.5)
        if mode == "idle":
            print("\npids", os.getpid(), *descendants(os.getpid()), flush=True)
            sys.stdin.read()
        begun = time.monotonic()
        submitted = []
        for job in jobs:
            submitted.append(client.submit(job))
            if mode == "single":
                client.wait_for_jobs(submitted[-1:])
                print(f"took {time.monotonic() - begun:.6f}", flush=True)
                begun = time.monotonic()
        if mode != "single":
            client.wait_for_jobs(submitted)
            print(f"took {time.monotonic() - begun:.6f}", flush=True)
    os.chdir("/")
