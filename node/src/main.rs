//! The binary `v6`.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
