//! Signing a browser in to the node's dashboard.

use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use web_gateway::SignInLink;

use super::output;
use crate::client::Client;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 open            in this PC's browser\n  v6 open --print    a link for another browser on this PC\nThe link works once, within ten minutes."
)]
pub(super) struct OpenArgs {
    /// Print the address instead of opening a browser
    #[arg(long)]
    print: bool,
    /// Print JSON, and open nothing
    #[arg(long)]
    json: bool,
}

/// Makes a link that signs one browser in, and opens it.
pub(super) async fn main(args: OpenArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let link: SignInLink =
        serde_json::from_slice(&client.call(Method::POST, "/v1/session/links", Bytes::new()).await?)?;
    if args.json {
        output::json(&link)?;
    } else if args.print {
        output::emit(format!("{}\n", link.url).as_bytes());
    } else if let Err(error) = ::open::that_detached(&link.url) {
        eprintln!("no browser could be started ({error}); open this address yourself, within ten minutes:");
        output::emit(format!("{}\n", link.url).as_bytes());
    } else {
        eprintln!("the dashboard opens in your browser");
    }
    Ok(ExitCode::SUCCESS)
}
