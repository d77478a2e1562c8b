//! Prints the description of the API, from which the dashboard's types are made.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    println!("{}", web_gateway::openapi_json());
}
