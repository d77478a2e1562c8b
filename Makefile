.PHONY: demo test

demo:
	cargo build --release -p v6-node
	bash scripts/demo.sh target/release/v6

test:
	bash scripts/test.sh
