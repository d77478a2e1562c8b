.PHONY: demo test soak bench ui screenshots

demo: ui
	cargo build --release -p v6-node
	bash scripts/demo.sh target/release/v6

test:
	bash scripts/test.sh

# The pages of the dashboard, which are built into the binary.
ui:
	bash scripts/ui.sh

# Pictures of the pages in both languages and themes, in docs/images; needs Chromium.
screenshots: ui
	cargo build --quiet -p v6-node
	cd web-gateway/ui && npx --no-install playwright test --config screenshots.config.ts

# Faults for MINUTES, against real nodes and in the simulator.
MINUTES ?= 30
soak:
	bash scripts/soak.sh $(MINUTES)

# V6 beside its peers, as a table and as pictures in docs/benchmarks.
bench:
	bash scripts/bench.sh
