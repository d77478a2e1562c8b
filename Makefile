.PHONY: demo test soak bench

demo:
	cargo build --release -p v6-node
	bash scripts/demo.sh target/release/v6

test:
	bash scripts/test.sh

# Faults for MINUTES, against real nodes and in the simulator.
MINUTES ?= 30
soak:
	bash scripts/soak.sh $(MINUTES)

# V6 beside its peers, as a table and as pictures in docs/benchmarks.
bench:
	bash scripts/bench.sh
