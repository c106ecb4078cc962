//! The second mark in a queue of a real broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use orchestrator::adapters::rabbitmq::{RabbitEndpoint, RabbitMarks, RabbitMarksOptions};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::marks::{HighWaterMark, MarkError, MarkStore, Marks};
use orchestrator_kernel::ports::marks_conformance::{self, MarksProvider};

use crate::support::amqp::Amqp;
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;

struct OnBroker {
    url: String,
    options: RabbitMarksOptions,
}

impl OnBroker {
    fn new(url: &str) -> Self {
        let options = RabbitMarksOptions { namespace: "test".to_owned(), ..RabbitMarksOptions::default() };
        Self { url: url.to_owned(), options }
    }

    fn marks(&self) -> RabbitMarks {
        let endpoint = RabbitEndpoint::new(&self.url, None, self.options.timeout).unwrap();
        RabbitMarks::new(endpoint, self.options.clone())
    }
}

#[async_trait]
impl MarksProvider for OnBroker {
    async fn store(&self) -> Arc<dyn MarkStore> {
        Arc::new(self.marks())
    }
}

fn receipts(epoch: u64, tail: u64) -> Marks {
    let mut marks = Marks::default();
    let mark = HighWaterMark { log_id: 1, epoch: Epoch(epoch), tail: Seq(tail), fingerprint: None };
    marks.raise_mark("receipts", mark);
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_passes_the_suite_of_marks() {
    let rabbit = RabbitServer::shared();
    marks_conformance::run(&OnBroker::new(&rabbit.url(&rabbit.vhost()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_another_deployment_are_refused_by_name_and_stay() {
    let rabbit = RabbitServer::shared();
    let url = rabbit.url(&rabbit.vhost());
    let mine = OnBroker::new(&url);
    let options = RabbitMarksOptions { namespace: "other".to_owned(), ..RabbitMarksOptions::default() };
    let other = OnBroker { options, ..OnBroker::new(&url) };
    mine.marks().note_marks(&receipts(9, 9)).await.unwrap();

    let refused = [other.marks().load_marks().await, other.marks().note_marks(&receipts(1, 5)).await];

    for answer in refused {
        let is_named =
            matches!(&answer, Err(MarkError::Away(why)) if why.contains("namespace test, not other"));
        assert!(is_named, "{answer:?}");
    }
    assert_eq!(kept_of(&Amqp::connect(&url).await).await, receipts(9, 9));
}

/// What the queue holds, by a plain consumer.
async fn kept_of(admin: &Amqp) -> Marks {
    let mut kept = Marks::default();
    for delivery in admin.drain("orchestrator.marks").await {
        let (namespace, marks) = Marks::decode(&delivery.data).unwrap();
        if namespace == "test" {
            kept.join_marks(&marks);
        }
    }
    kept
}

/// Method: a consumer that reads the mark and hangs, as a host that is frozen in the middle of a note.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_a_hung_host_holds_is_away_and_never_nothing() {
    let rabbit = RabbitServer::shared();
    let mut broker = OnBroker::new(&rabbit.url(&rabbit.vhost()));
    broker.options.timeout = Duration::from_secs(1);
    eventually("it is noted", async || broker.marks().note_marks(&receipts(1, 5)).await.ok()).await;
    let hung = Amqp::connect(&broker.url).await;
    let consuming = hung.channel().basic_consume(
        "orchestrator.marks".into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consuming.await.unwrap();
    let held = consumer.next().await.unwrap().unwrap();

    let looked = broker.marks().load_marks().await;

    assert!(matches!(&looked, Err(MarkError::Away(why)) if why.contains("did not answer")), "{looked:?}");
    drop((held, consumer, hung));
    let found = eventually("it is there again", async || broker.marks().load_marks().await.ok()).await;
    assert_eq!(found, receipts(1, 5));
}

/// The broker writes its list of queues behind their declaration: one that is killed in that moment has lost a queue
/// that nobody was told is there for good.
const DECLARED_FOR: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn marks_survive_kills_of_the_broker_and_an_alarm_is_named() {
    let mut rabbit = RabbitServer::own();
    let vhost = rabbit.vhost();
    let mut broker = OnBroker::new(&rabbit.url(&vhost));
    broker.options.timeout = Duration::from_secs(2);
    let marks = broker.marks();
    let declared = Instant::now();
    for tail in [10, 20] {
        // The first one after a kill goes over a connection that is gone.
        eventually("it is noted", async || {
            let noted = marks.note_marks(&receipts(1, tail)).await.ok();
            noted.filter(|_| DECLARED_FOR < declared.elapsed())
        })
        .await;
        rabbit.kill();
        let away = marks.load_marks().await;
        assert!(matches!(&away, Err(MarkError::Away(_))), "{away:?}");
        rabbit.start_again();
        let again = broker.marks();
        let loaded = eventually("it answers again", async || again.load_marks().await.ok()).await;
        assert_eq!(loaded, receipts(1, tail));
    }

    eventually("it is noted", async || marks.note_marks(&receipts(1, 30)).await.ok()).await;
    rabbit.set_memory_alarm(true);
    eventually("the alarm is named", async || match marks.note_marks(&receipts(1, 31)).await {
        Err(MarkError::Away(why)) if why.contains("blocks publishers") => Some(()),
        _ => None,
    })
    .await;
    rabbit.set_memory_alarm(false);
    let noted = eventually("it is noted", async || marks.note_marks(&receipts(1, 31)).await.ok()).await;
    assert_eq!(noted, receipts(1, 31));
}
