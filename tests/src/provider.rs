//! The demo provider, in this process.

use demo_provider as demo;

/// A provider that answers, streams and misbehaves by the model's name (see `examples/demo-provider`).
#[derive(Debug)]
pub struct Provider {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Provider {
    /// Streams without a pause between chunks.
    pub async fn start() -> Self {
        Self::with_pause(std::time::Duration::ZERO).await
    }

    /// Streams with a pause between chunks.
    pub async fn with_pause(pause: std::time::Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, pause));
        Self { url, task }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: tokio::net::TcpListener, pause: std::time::Duration) {
    let options = demo::Options { chunk_delay: pause, ..demo::Options::default() };
    let _ = demo::serve(listener, options, std::future::pending()).await;
}
