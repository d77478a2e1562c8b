//! How fast a large blob moves; prints, asserts nothing but the content.

use std::time::Instant;

use node::blobs::{BlobRef, BoxFuture, BoxedStream, DialError, Dialer};

use crate::net::{MIB, bytes_of, job, node, open};

struct Tcp(std::net::SocketAddr);

impl Dialer for Tcp {
    fn open(&self, _: crdt::ids::NodeId) -> BoxFuture<'static, Result<BoxedStream, DialError>> {
        let address = self.0;
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| DialError(e.to_string()))?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn megabytes_per_second_of_a_large_blob_over_tcp() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    b.set_dialer(std::sync::Arc::new(Tcp(listener.local_addr().expect("bound"))));
    let server = a.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move { server.serve(Box::new(stream), node(2)).await });
        }
    });
    let bytes = bytes_of(1, 256 * MIB);
    let rate = |what: &str, start: Instant, blob: &BlobRef| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {:.0} MB/s", blob.size as f64 / 1e6 / seconds);
    };
    let start = Instant::now();
    let blob = a.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
    rate("add", start, &blob);
    let start = Instant::now();
    a.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
    rate("add again", start, &blob);
    let start = Instant::now();
    b.fetch(&blob, &[node(1)], &job(1), None).await.expect("fetches");
    rate("fetch", start, &blob);
    let start = Instant::now();
    assert!(b.read_all(&blob, blob.size).await.expect("reads") == bytes);
    rate("read", start, &blob);
    let start = Instant::now();
    b.export(&blob, &dir.path().join("out")).await.expect("exports");
    rate("export", start, &blob);
    let start = Instant::now();
    b.sync().await.expect("syncs");
    rate("sync", start, &blob);
    a.shutdown().await;
    b.shutdown().await;
}
