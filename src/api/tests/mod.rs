//! A whole service of fakes on a real socket.

mod control;
mod events;
mod fakes;
mod kill_switch;
mod receipts;
mod server;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine_plane::buffer::messages::BufferMsg;
use orchestrator_engine_plane::flow::{FlowLimits, OutputFlow};
use orchestrator_engine_plane::publisher::messages::PublishedUpTo;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::kill_switch::{KillGate as _, MemoryKillSwitch};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_runtime::address::Address;
use orchestrator_runtime::kill_switch::{Gate, KillSwitchSettings};
use orchestrator_runtime::status::{Condition, Lifecycle, StatusBoard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::fakes::{FakeBuffer, FakeClock, FakeIntake, Runs};
use super::{
    ApiState, CalledService, CalledServices, HttpLimits, MetricsPage, OperatorDesk, PublicConfig,
    TradingFaces, build_router, serve_router,
};

/// Nothing that works takes this long.
const DEADLINE: Duration = Duration::from_secs(10);

struct Setup {
    limits: HttpLimits,
    clock: FakeClock,
    has_intake: bool,
    has_buffer: bool,
    trading: Option<TradingFaces>,
    board: StatusBoard,
    /// Where the kill switch is changed; the store that is read when nothing.
    operators: Option<OperatorDesk>,
    called_services: CalledServices,
    /// What is read.
    kill_switch: Arc<MemoryKillSwitch>,
}

impl Default for Setup {
    fn default() -> Self {
        let clock = FakeClock { now: TsMs(1_700_000_000_123), is_driven: false };
        let (limits, board) = (HttpLimits::default(), StatusBoard::default());
        let kill_switch = Arc::new(MemoryKillSwitch::default());
        kill_switch.put_value(Some(b"off"));
        Self {
            limits,
            clock,
            has_intake: true,
            has_buffer: true,
            trading: None,
            board,
            operators: None,
            called_services: CalledServices::default(),
            kill_switch,
        }
    }
}

struct Service {
    address: SocketAddr,
    client: reqwest::Client,
    intake: Arc<FakeIntake>,
    runs: Arc<Runs>,
    board: StatusBoard,
    gate: Gate,
    kill_switch: Arc<MemoryKillSwitch>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Setup {
    async fn start(self) -> Service {
        crate::process::tls::install_crypto();
        let (intake, runs) = (Arc::new(FakeIntake::default()), Arc::new(Runs::new().await));
        let buffer: Address<BufferMsg> = Address::new("buffer");
        if self.has_buffer {
            buffer.set_actor(FakeBuffer::spawn(Arc::clone(&intake)).await);
        }
        let (board, shutdown) = (self.board, CancellationToken::new());
        board.enter_lifecycle(Lifecycle::Running);
        let kill_switch = self.kill_switch;
        let settings = KillSwitchSettings { poll: DEADLINE, read_timeout: DEADLINE, lease: DEADLINE * 9 };
        let gate = Gate::new(Arc::clone(&kill_switch) as _, settings, Arc::new(Unobserved), board.clone());
        gate.fresh_permit().await.unwrap();
        let flow_limits = FlowLimits { backlog_max: 10, backlog_resume: 5, blocked_max: DEADLINE };
        let state = ApiState {
            intake: self.has_intake.then(|| Arc::clone(&intake) as _),
            buffer,
            receipts: Arc::new(MemoryLog::default()),
            quarantine: Arc::new(MemoryLog::default()),
            runs: Arc::clone(&runs) as _,
            committed: runs.committed.subscribe(),
            clock: Arc::new(self.clock),
            gate: gate.clone(),
            operators: self.operators.unwrap_or_else(|| OperatorDesk::open(Arc::clone(&kill_switch) as _)),
            trading: self.trading,
            public_config: PublicConfig {
                environment: "dev",
                dry_run: true,
                alpaca_paper: true,
                circuit_breaker_enabled: true,
            },
            called_services: Arc::new(move || self.called_services.clone()),
            wall_now: || TsMs(1_767_225_600_000),
            board: board.clone(),
            flow: OutputFlow::new(flow_limits),
            publisher: Address::new("publisher"),
            reached: PublishedUpTo::default(),
            metrics: MetricsPage { render: Arc::new(|| "up 1\n".to_owned()), content_type: "text/test" },
            durability: "fdatasync",
            version: "1.2.3",
            limits: self.limits,
            shutdown: shutdown.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_router(listener, build_router(state), self.limits, shutdown.clone()));
        let client = reqwest::Client::builder().read_timeout(DEADLINE).build().unwrap();
        Service { address, client, intake, runs, board, gate, kill_switch, shutdown, server }
    }
}

impl Service {
    async fn start() -> Self {
        Setup::default().start().await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    /// As a client that wants `kind`.
    async fn get_as(&self, path: &str, kind: &str) -> Answer {
        let request = self.client.get(self.url(path)).header("accept", kind);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Posts lines, numbered from `sequence` on by the producer `p` if given.
    async fn post(&self, body: impl Into<reqwest::Body>, sequence: Option<u64>) -> Answer {
        let mut request = self.client.post(self.url("/api/v1/receipts")).body(body);
        request = request.header("content-type", "application/x-ndjson");
        if let Some(sequence) = sequence {
            request = request.header("orchestrator-producer", "p").header("orchestrator-sequence", sequence);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// Sends bytes and reads until the server closes or `enough` says so.
    async fn raw(&self, bytes: &[u8], enough: impl Fn(&str) -> bool) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = async {
            while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {
                if enough(&String::from_utf8_lossy(&answer)) {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("the server neither answers nor closes");
        String::from_utf8(answer).unwrap()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts a problem of this status and word; returns its detail.
    #[track_caller]
    fn problem(&self, status: u16, word: &str) -> String {
        let json = self.json();
        assert_eq!((self.status, json["type"].as_str()), (status, Some(word)), "{}", self.text);
        assert_eq!(json["status"], status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(json["title"].is_string());
        json["detail"].as_str().unwrap().to_owned()
    }
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
