//! Everything in which the servers and the service of the live tests differ from what is shipped: `ops/redis`,
//! `ops/rabbitmq`, `config/production.toml` and what `ops/make_secrets.py` makes.
//!
//! The *addresses* say where things are on this machine: ports, paths, URLs, names. The rest are *deviations*, each
//! with its reason. Nothing else differs: a server refuses a setting that is not listed here, and
//! `the_servers_and_the_service_of_the_tests_are_the_shipped_ones` compares what is in force.

/// A setting, and why a test may set it otherwise.
pub(crate) type Deviation = (&'static str, &'static str);

/// Options of redis-server that only say where it is.
pub(crate) const REDIS_ADDRESSES: [&str; 5] = ["--aclfile", "--bind", "--dir", "--logfile", "--port"];

/// Options of redis-server that a test may give besides.
pub(crate) const REDIS: [Deviation; 10] = [
    ("--appendonly", "a server without a file must be refused, and a stream may be on one"),
    ("--appendfsync", "a server that syncs too seldom must be refused, or keep what it promises"),
    ("--no-appendfsync-on-rewrite", "a server that does not sync all the time must be refused"),
    ("--aof-load-truncated", "a server that starts on a cut file must be found out"),
    ("--maxmemory", "a server that evicts must be refused; one without memory takes nothing"),
    ("--maxmemory-policy", "a server that evicts must be refused"),
    ("--replicaof", "a replica must be refused"),
    ("--cluster-enabled", "the kill switch may be on a cluster"),
    ("--cluster-port", "where a server of a cluster listens to the others"),
    ("--save", "a server that also writes snapshots is used as it is"),
];

/// The user of Redis beside the shipped ones: whoever makes the faults, and looks at what nobody else may see. The
/// service never logs in as it.
pub(crate) const REDIS_INSPECTOR: &str = "user inspector on nopass ~* &* +@all";

/// Lines of rabbitmq.conf that only say where the broker is.
pub(crate) const RABBIT_ADDRESSES: [&str; 3] =
    ["load_definitions", "listeners.tcp.default", "prometheus.tcp.port"];

/// Settings of the service that only say where things are.
pub(crate) const SERVICE_ADDRESSES: [&str; 10] = [
    "service.data_dir",
    "http.listen",
    "redis.url",
    // One deployment's keys on a server.
    "redis.namespace",
    "redis.mark.path",
    "redis.mark.topology",
    "redis.mark.url",
    "kill_switch.url",
    "sources.market.url",
    "publish.rabbitmq.url",
];

/// Settings of the service that are others in every test: its value, and why. Times are short, so that what is noticed
/// and healed is noticed and healed within a test.
pub(crate) const SERVICE: [(&str, &str, &str); 13] = [
    ("service.grace", "\"5s\"", "a stop that cannot be finished is waited for"),
    ("redis.mark.kind", "\"file\"", "the second mark is taken away and put back by the tests of a fail-over"),
    ("redis.response_timeout", "\"500ms\"", "a hung server is noticed within 2 s"),
    ("redis.check_interval", "\"500ms\"", "a broken promise is noticed within 2.5 s"),
    ("sources.market.timeout", "\"2s\"", "a hung broker is noticed within the test"),
    ("ingest.reconnect.max", "\"500ms\"", "a source is opened again soon after the fault"),
    ("schedule.interval", "\"1s\"", "runs come once a second, not once in minutes"),
    ("schedule.delay", "\"300ms\"", "less than the interval"),
    ("symbols.discover", "false", "every symbol has its first run in the first interval"),
    ("symbols.list", "[\"BTCUSDT\", \"ETHUSDT\", \"SOLUSDT\", \"XRPUSDT\"]", "as above"),
    ("publish.rabbitmq.timeout", "\"2s\"", "a hung broker is noticed within the test"),
    ("publish.rabbitmq.confirm_timeout", "\"3s\"", "as above"),
    ("publish.retry.max", "\"500ms\"", "outputs are tried again soon after the fault"),
];

/// Settings of the service that are others where `config/production.toml` itself is run, with the mark on the broker
/// and every time as shipped: its value, and why.
pub(crate) const PRODUCTION: [(&str, &str, &str); 4] = [
    ("schedule.interval", "1s", "runs come once a second, not once in minutes"),
    ("schedule.delay", "100ms", "less than the interval"),
    ("redis.archive_above", "1MiB", "so little that the test's receipts move to the archive"),
    ("redis.archive_keep", "64KiB", "as above"),
];

/// Why a test lets the service declare exchanges and queues itself, which its shipped user may not do.
pub(crate) const DECLARES: &str = "what people delete is declared again, or a queue has other arguments";
