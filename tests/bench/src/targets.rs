//! Starts what is measured: nginx, the gateway in its configurations, and the upstream behind all of them.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Error,
    bounds::{IN_FLIGHT, QUEUE, SINKS},
    load::{get, get_json},
    process::{Process, announced, free_addresses, wait_until_listening},
};

/// What the load goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Nothing: what is added is added to this.
    Direct,
    /// nginx as a plain reverse proxy: the yardstick.
    Nginx,
    /// The gateway without plugins.
    Bare,
    /// The gateway with `file`, `prometheus` and `console`.
    Three,
    /// The same, and an exporter that hangs in its first call.
    Hanging,
    /// The gateway with exporters that all hang, and with bounds of its own.
    Dead,
    /// The gateway with an exporter whose metrics are 3 MB.
    Scraped,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Nginx, Self::Bare, Self::Three, Self::Hanging];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx, plain proxy",
            Self::Bare => "gateway, no plugins",
            Self::Three => "gateway, file + prometheus + console",
            Self::Hanging => "the same + one that hangs",
            Self::Dead => "gateway, every exporter hangs",
            Self::Scraped => "gateway, 3 MB of metrics",
        }
    }
}

/// The programs and plugins that are measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Binaries {
    /// The gateway; by default beside this program.
    #[arg(long, env = "MAGICAPI_GATEWAY_BIN")]
    gateway: Option<PathBuf>,
    /// The upstream; by default beside this program.
    #[arg(long, env = "DEMO_PROVIDER_BIN")]
    demo_provider: Option<PathBuf>,
    #[arg(long, env = "NGINX_BIN", default_value = "nginx")]
    nginx: PathBuf,
    /// Where the plugins' libraries are; by default beside the gateway.
    #[arg(long)]
    plugin_dir: Option<PathBuf>,
    /// Measures only direct and nginx.
    #[arg(long)]
    without_gateway: bool,
}

impl Binaries {
    /// The same with every default filled in, and everything seen to be there.
    pub(crate) fn resolved(&self) -> Result<Self, Error> {
        let here = env::current_exe()?;
        let here = here.parent().ok_or("this program has no folder")?;
        let or_beside = |path: &Option<PathBuf>, name: &str| path.clone().unwrap_or_else(|| here.join(name));
        let gateway = or_beside(&self.gateway, "magicapi-gateway");
        let demo_provider = or_beside(&self.demo_provider, "demo-provider");
        let beside_gateway = gateway.parent().unwrap_or(Path::new(".")).to_owned();
        let plugin_dir = self.plugin_dir.clone().unwrap_or(beside_gateway);
        exists(&demo_provider, "cargo build --release -p demo-provider")?;
        if !self.without_gateway {
            exists(&gateway, "cargo build --release -p magicapi-gateway")?;
            for plugin in THREE.iter().chain([&HANGING]) {
                exists(&plugin_dir.join(plugin.file), "cargo build --release --workspace")?;
            }
        }
        Ok(Self {
            gateway: Some(gateway),
            demo_provider: Some(demo_provider),
            nginx: on_path(&self.nginx)?,
            plugin_dir: Some(fs::canonicalize(&plugin_dir)?),
            without_gateway: self.without_gateway,
        })
    }

    /// The probe plugin, for what is measured in this process.
    pub(crate) fn probe(&self) -> Option<PathBuf> {
        let folder = self.plugin_dir.as_ref().filter(|_| !self.without_gateway)?;
        Some(folder.join(HANGING.file))
    }

    /// Where the exporters' libraries are.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.plugin_dir.clone().unwrap_or_default()
    }

    /// The backends of the tests, beside this program where they were built.
    pub(crate) fn test_server(&self) -> Option<PathBuf> {
        let beside = env::current_exe().ok()?.with_file_name("test-server");
        beside.is_file().then_some(beside)
    }

    pub(crate) fn without_gateway(&self) -> bool {
        self.without_gateway
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Direct | Kind::Nginx) || !self.without_gateway
    }
}

fn exists(path: &Path, cure: &str) -> Result<(), Error> {
    if path.is_file() { Ok(()) } else { Err(format!("{} is missing; run: {cure}", path.display()).into()) }
}

fn on_path(program: &Path) -> Result<PathBuf, Error> {
    if program.components().count() > 1 {
        return exists(program, "tests/setup.sh").map(|()| program.to_owned());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where not everyone's PATH leads.
    env::split_paths(&folders)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{} is not on the PATH; run: tests/setup.sh", program.display()).into())
}

/// The provider behind every proxy.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    _process: Process,
}

impl Upstream {
    pub(crate) fn start(binaries: &Binaries) -> Result<Self, Error> {
        Self::with_pause(binaries, Duration::ZERO)
    }

    /// With a limit on the streams of an HTTP/2 connection.
    pub(crate) fn with_streams(binaries: &Binaries, streams: Option<u32>) -> Result<Self, Error> {
        let arguments = streams.map(|streams| format!("--max-streams={streams}"));
        Self::with(binaries, Duration::ZERO, arguments)
    }

    /// With a pause before each chunk of a stream.
    pub(crate) fn with_pause(binaries: &Binaries, pause: Duration) -> Result<Self, Error> {
        Self::with(binaries, pause, None)
    }

    fn with(binaries: &Binaries, pause: Duration, more: Option<String>) -> Result<Self, Error> {
        let program = binaries.demo_provider.as_ref().ok_or("no demo provider")?;
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--chunk-delay"])
            .arg(humantime::format_duration(pause).to_string())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let stdout = process.stdout().ok_or("no standard output")?;
        let [address] = announced(stdout, ["listening on http://"])?;
        Ok(Self { address, _process: process })
    }
}

/// Something that takes requests, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where plain requests go.
    pub(crate) plain: SocketAddr,
    /// Where requests for streams go.
    pub(crate) stream: SocketAddr,
    /// Where the gateway tells of its plugins.
    admin: Option<SocketAddr>,
    /// None for the upstream itself.
    process: Option<Process>,
    _folder: TempDir,
}

impl Running {
    pub(crate) fn start(kind: Kind, binaries: &Binaries, upstream: &Upstream) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("magicapi-bench-").tempdir()?;
        match kind {
            Kind::Direct => {
                let address = upstream.address;
                Ok(Self { plain: address, stream: address, admin: None, process: None, _folder: folder })
            }
            Kind::Nginx => nginx(&binaries.nginx, upstream.address, folder),
            Kind::Bare => gateway(binaries, upstream.address, folder, "", &[]),
            Kind::Three => gateway(binaries, upstream.address, folder, "", &THREE),
            Kind::Hanging => {
                let [one, two, three] = THREE;
                gateway(binaries, upstream.address, folder, "", &[one, two, three, HANGING])
            }
            Kind::Scraped => gateway(binaries, upstream.address, folder, "", &[LARGE]),
            Kind::Dead => {
                let telemetry = format!(
                    "[telemetry.capture]\nmax_body_bytes = \"4 MiB\"\nmax_in_flight_bytes = \"{IN_FLIGHT} B\"\n"
                );
                let keys = format!("queue = {{ max_records = 1000000, max_bytes = \"{QUEUE} B\" }}\n");
                let names: Vec<String> = (1..=SINKS).map(|number| format!("dead-{number}")).collect();
                let dead = |name| Plugin { name, keys: &keys, ..HANGING };
                let plugins: Vec<Plugin<'_>> = names.iter().map(|name| dead(name)).collect();
                gateway(binaries, upstream.address, folder, &telemetry, &plugins)
            }
        }
    }

    /// The gateway without plugins, with further keys of its provider.
    pub(crate) fn behind(binaries: &Binaries, upstream: &Upstream, keys: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("magicapi-bench-").tempdir()?;
        gateway(binaries, upstream.address, folder, keys, &[])
    }

    /// Where operators connect.
    pub(crate) fn admin(&self) -> Result<SocketAddr, Error> {
        Ok(self.admin.ok_or("no gateway")?)
    }

    pub(crate) fn cpu(&self) -> Result<Option<Duration>, Error> {
        self.process.as_ref().map(Process::cpu).transpose()
    }

    pub(crate) fn settled_cpu(&self, limit: Duration) -> Result<Option<Duration>, Error> {
        self.process.as_ref().map(|process| process.settled_cpu(limit)).transpose()
    }

    pub(crate) fn memory(&self) -> Result<u64, Error> {
        self.process.as_ref().map_or(Ok(0), Process::settled_memory)
    }

    /// Resident memory, though it may still change.
    pub(crate) fn memory_now(&self) -> Result<u64, Error> {
        self.process.as_ref().map_or(Ok(0), Process::memory)
    }

    /// Bytes of bodies in flight, as the gateway counts them.
    pub(crate) fn captured(&self) -> Result<u64, Error> {
        const NAME: &str = "magicapi_gateway_captured_bytes ";
        let metrics = get(self.admin.ok_or("no gateway")?, "/metrics")?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(NAME)).ok_or("no captured bytes")?;
        Ok(value.parse::<f64>()? as u64)
    }

    /// The books of every exporter, as they are now.
    pub(crate) fn all_books(&self) -> Result<Vec<Books>, Error> {
        let plugins = get_json(self.admin.ok_or("no gateway")?, "/plugins")?;
        let list = plugins["plugins"].as_array().ok_or("GET /plugins has no list of plugins")?;
        list.iter().map(Books::read).collect()
    }

    /// The books of the exporters that are meant to work, once they have nothing left to do; none without a gateway.
    pub(crate) fn books(&self, limit: Duration) -> Result<Vec<Books>, Error> {
        if self.admin.is_none() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + limit;
        loop {
            let (hanging, books): (Vec<_>, Vec<_>) =
                self.all_books()?.into_iter().partition(|books| books.exporter == HANGING.name);
            // Otherwise the figures would be those of a healthy exporter.
            if hanging.iter().any(|books| books.delivered > 0 || books.waiting == 0) {
                return Err("the exporter that should hang does not".into());
            }
            if books.iter().all(|books| books.waiting == 0) || Instant::now() > deadline {
                return Ok(books);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What became of the records of one exporter.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Books {
    pub(crate) exporter: String,
    pub(crate) delivered: u64,
    /// Delivered without their bodies, for want of room.
    pub(crate) shed: u64,
    /// Dropped because the queue was full.
    pub(crate) dropped: u64,
    pub(crate) queued_bytes: u64,
    waiting: u64,
}

impl Books {
    fn read(plugin: &Value) -> Result<Self, Error> {
        let books = &plugin["books"];
        let count = |name: &str| books[name].as_u64().ok_or_else(|| format!("no `{name}` in {plugin}"));
        Ok(Self {
            exporter: plugin["name"].as_str().unwrap_or_default().to_owned(),
            delivered: count("delivered")?,
            shed: count("shed")?,
            dropped: books["dropped"]["queue_full"].as_u64().ok_or("no count of dropped records")?,
            queued_bytes: count("queued_bytes")?,
            waiting: count("queued")? + count("in_flight")?,
        })
    }
}

fn nginx(program: &Path, upstream: SocketAddr, folder: TempDir) -> Result<Running, Error> {
    let [plain, stream] = free_addresses()?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, nginx_config(folder.path(), upstream, plain, stream))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder.path()).arg("-e").arg("stderr").arg("-c").arg(&config).stdin(Stdio::null());
    let mut process = Process::spawn(&mut command)?;
    wait_until_listening(&mut process, stream)?;
    Ok(Running { plain, stream, admin: None, process: Some(process), _folder: folder })
}

/// One worker in one process, so that there is one process to measure and to stop.
fn nginx_config(folder: &Path, upstream: SocketAddr, plain: SocketAddr, stream: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        r#"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
{temporary}    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    upstream provider {{
        server {upstream};
        keepalive 1024;
        keepalive_timeout 600s;
        keepalive_requests 1000000000;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{
        listen {plain} backlog=4096;
        location / {{ proxy_pass http://provider; }}
    }}
    server {{
        listen {stream} backlog=4096;
        location / {{ proxy_pass http://provider; proxy_buffering off; }}
    }}
}}
"#
    )
}

/// A plugin as the measured configurations name it.
#[derive(Debug, Clone, Copy)]
struct Plugin<'a> {
    name: &'a str,
    file: &'static str,
    /// Further keys of its entry.
    keys: &'a str,
    /// Its settings; `{folder}` is a temporary folder.
    settings: &'static str,
}

/// The usual three. The console writes to standard output, which is /dev/null.
const THREE: [Plugin<'static>; 3] = [
    Plugin {
        name: "file",
        file: "libfile_exporter.so",
        keys: "",
        // Few kept files: a run writes gigabytes.
        settings: r#"path = "{folder}/records.jsonl"
keep = 1"#,
    },
    Plugin { name: "prometheus", file: "libprometheus_exporter.so", keys: "", settings: "" },
    Plugin { name: "console", file: "libconsole_exporter.so", keys: "", settings: "" },
];

/// The probe plugin, told never to return from `export`.
const HANGING: Plugin<'static> =
    Plugin { name: "hanging", file: "libprobe_exporter.so", keys: "", settings: r#"script = ["hang"]"# };

/// The probe plugin, told to expose more than any exporter should.
const LARGE: Plugin<'static> =
    Plugin { name: "large", file: "libprobe_exporter.so", keys: "", settings: r#"scrape = "large""# };

fn gateway(
    binaries: &Binaries,
    upstream: SocketAddr,
    folder: TempDir,
    more: &str,
    plugins: &[Plugin<'_>],
) -> Result<Running, Error> {
    let config = folder.path().join("gateway.toml");
    let plugin_dir = binaries.plugin_dir.as_ref().ok_or("no plugin folder")?;
    fs::write(&config, gateway_config(upstream, plugin_dir, folder.path(), more, plugins)?)?;
    let mut command = Command::new(binaries.gateway.as_ref().ok_or("no gateway")?);
    command.arg("--config").arg(&config).current_dir(folder.path());
    // These would override the file.
    for name in ["HOST", "PORT", "MAGICAPI_CONFIG", "ENABLED_EXPORTERS"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::spawn(&mut command)?;
    let stderr = process.stderr().ok_or("no standard error")?;
    let [address, admin] = announced(stderr, ["listening on http://", "admin on http://"])?;
    Ok(Running {
        plain: address,
        stream: address,
        admin: Some(admin),
        process: Some(process),
        _folder: folder,
    })
}

/// Everything that is not named here has its default, as with a user. `more` begins with keys of the provider.
fn gateway_config(
    upstream: SocketAddr,
    plugin_dir: &Path,
    folder: &Path,
    more: &str,
    plugins: &[Plugin<'_>],
) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        r#"[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[proxy]
default_provider = "upstream"
[providers.upstream]
kind = "openai"
base_url = "http://{upstream}"
{more}"#
    );
    for Plugin { name, file, keys, settings } in plugins {
        let path = plugin_dir.join(file);
        let settings = settings.replace("{folder}", &folder.display().to_string());
        write!(
            text,
            "[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{keys}[plugin.config]\n{settings}\n",
            path.display()
        )?;
    }
    Ok(text)
}
