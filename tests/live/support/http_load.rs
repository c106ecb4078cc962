//! A second market, posted over HTTP: it goes on while the broker is down or blocks its producers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::load::Market;

/// The producer while it runs. It never posts a batch twice.
pub(crate) struct HttpLoad {
    stop: Arc<AtomicBool>,
    durable: Arc<Mutex<Vec<Vec<u8>>>>,
    refused: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl HttpLoad {
    /// Posts some 400 receipts a second to the service at `url`, which needs a source of kind `http`.
    pub(crate) fn start(url: &str) -> Self {
        let (stop, durable, refused) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<Vec<u8>>>>::default(),
            Arc::<AtomicU64>::default(),
        );
        let task = tokio::spawn({
            let (url, stop) = (format!("{url}/api/v1/receipts"), Arc::clone(&stop));
            let (durable, refused) = (Arc::clone(&durable), Arc::clone(&refused));
            async move {
                let client = reqwest::Client::new();
                let mut market = Market::of("over_http");
                while !stop.load(Ordering::Relaxed) {
                    let batch = market.batch();
                    let request = client.post(&url).header("content-type", "application/x-ndjson");
                    match request.body(batch.join(&b'\n')).send().await {
                        Ok(answer) if answer.status().as_u16() == 200 => {
                            durable.lock().unwrap().extend(batch);
                        }
                        other => {
                            println!("receipts over HTTP: {other:?}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Self { stop, durable, refused, task }
    }

    /// How many receipts were answered with 200: they are durable.
    pub(crate) fn durable(&self) -> usize {
        self.durable.lock().unwrap().len()
    }

    /// How many batches got another answer or none.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends it; returns every receipt that was answered with 200, byte for byte.
    pub(crate) async fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        std::mem::take(&mut *self.durable.lock().unwrap())
    }
}
