//! A real PostgreSQL.

use std::{
    fs::{File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{file, lasting_port, leash::Leash, poll};
use crate::ended::Ended;

/// A PostgreSQL with TLS, which can be killed and started again on the same port and data.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    folder: TempDir,
    owner: Option<Account>,
    server: Option<Leash>,
    databases: AtomicU32,
}

/// A database of one test.
#[derive(Debug, Clone)]
pub struct Database {
    port: u16,
    name: String,
    authority: PathBuf,
}

/// Whom the server runs as when this process is root, which it refuses to be.
#[derive(Debug, Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

/// What a crash of the server loses is asserted by tests; a crash of the machine is not, and waiting for its disk is
/// most of what a small insert costs.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
    max_connections = 100\nssl = on\nssl_cert_file = '../server.pem'\nssl_key_file = '../server.key'\n";

/// Who may come in, and how: the superuser at once, the others with their password.
const ACCESS: &str = "host all postgres 127.0.0.1/32 trust\n\
    hostssl all tls_only 127.0.0.1/32 scram-sha-256\n\
    host all gateway 127.0.0.1/32 scram-sha-256\n";

impl Postgres {
    /// Owns every database; signs in with [`Self::PASSWORD`] (SCRAM-SHA-256), with or without TLS.
    pub const USER: &str = "gateway";
    /// May do what [`Self::USER`] may, with the same password, but is let in over TLS alone.
    pub const TLS_USER: &str = "tls_only";
    /// The password of both.
    pub const PASSWORD: &str = "correct-horse";

    /// The one server of this process, for tests that do not stop it; the first who asks starts it in about 2 s.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owner = rustix::process::geteuid().is_root().then(Account::of_the_package);
        make_certificates(folder.path());
        if let Some(Account { user, group }) = owner {
            for path in [folder.path(), &folder.path().join("server.pem"), &folder.path().join("server.key")]
            {
                chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let mut postgres =
            Self { port: lasting_port(), folder, owner, server: None, databases: AtomicU32::new(0) };
        postgres.make_cluster();
        postgres.start_again();
        postgres.make_users();
        postgres
    }

    fn make_cluster(&self) {
        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(self.data());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        succeed(&mut initdb);
        let settings = format!("{SETTINGS}port = {}\n", self.port);
        for (name, text) in [("postgresql.auto.conf", settings.as_str()), ("pg_hba.conf", ACCESS)] {
            // Written in place, so that the file keeps its owner.
            std::fs::write(self.data().join(name), text).unwrap();
        }
    }

    fn make_users(&self) {
        let sql = format!(
            "CREATE ROLE {user} LOGIN PASSWORD '{password}';\
             CREATE ROLE {tls_user} LOGIN PASSWORD '{password}' IN ROLE {user}",
            user = Self::USER,
            tls_user = Self::TLS_USER,
            password = Self::PASSWORD,
        );
        succeed(&mut psql(&self.of_name("postgres").url(), &sql));
    }

    /// A new, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.of_name("postgres").execute(&format!("CREATE DATABASE {name} OWNER {}", Self::USER)).await;
        self.of_name(&name)
    }

    fn of_name(&self, name: &str) -> Database {
        Database { port: self.port, name: name.to_owned(), authority: self.folder.path().join("ca.pem") }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's main process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(Leash::id)
    }

    /// Cuts every connection and leaves what it was doing, as `pg_ctl stop -m immediate` does; the next start recovers
    /// what was committed. Returns when all of the server's processes are gone.
    pub fn stop_immediately(&mut self) {
        self.server = None;
    }

    /// Starts it on the same port and data, and waits until it lets in.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).stdout(Stdio::null()).stderr(log);
        // SIGQUIT is what `pg_ctl stop -m immediate` sends: the server takes its children with it.
        let mut server = Leash::spawn_in(self.folder.path(), Signal::QUIT, &mut command);
        let ready = poll(|| (server.has_ended() || self.is_ready()).then(|| !server.has_ended()));
        assert!(ready == Some(true), "PostgreSQL did not start: {}", self.said());
        self.server = Some(server);
    }

    fn is_ready(&self) -> bool {
        let mut asking = Command::new(binaries().join("pg_isready"));
        asking.args(["--quiet", "--host=127.0.0.1", &format!("--port={}", self.port)]);
        asking.status().unwrap().success()
    }

    /// All that the server wrote to its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the server, as its own user when this process is root. `setpriv` becomes the program, so that its
    /// process is the one that was started.
    fn command(&self, program: &str) -> Command {
        let program = binaries().join(program);
        let mut command = match self.owner {
            None => Command::new(program),
            Some(Account { user, group }) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={group}")]);
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

impl Database {
    /// Its address for the superuser, who needs no password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// Its address for [`Postgres::USER`] or [`Postgres::TLS_USER`], with the password.
    pub fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}:{}@127.0.0.1:{}/{}", Postgres::PASSWORD, self.port, self.name)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority that signed the server's certificate, which names `127.0.0.1` and `localhost`.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Runs statements as the superuser, all or none.
    ///
    /// # Panics
    /// When one fails.
    pub async fn execute(&self, sql: &str) {
        self.psql(&self.url(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The rows of a query, as JSON objects by the names of its columns.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        self.rows_by(&self.url(), query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query made with another address of this database, such as one that asks for TLS.
    ///
    /// # Errors
    /// What `psql` says when the server cannot be reached or refuses.
    pub async fn rows_by(&self, url: &str, query: &str) -> Result<Vec<Value>, String> {
        let text = self.psql(url, &format!("SELECT to_jsonb(answer) FROM ({query}) answer")).await?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    async fn psql(&self, url: &str, sql: &str) -> Result<String, String> {
        let ended = Ended::of(psql(url, sql)).await;
        if ended.code == Some(0) { Ok(ended.output) } else { Err(ended.errors) }
    }
}

impl Account {
    fn of_the_package() -> Self {
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.into_iter().find(|fields| fields[0] == "postgres");
        let fields = fields
            .expect("PostgreSQL does not run as root, and there is no user postgres; run tests/setup.sh");
        Self { user: fields[2].parse().unwrap(), group: fields[3].parse().unwrap() }
    }
}

fn psql(url: &str, sql: &str) -> Command {
    let mut psql = Command::new(binaries().join("psql"));
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--quiet"]);
    psql.args(["--dbname", url, "--command", sql]);
    psql
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The programs of one version: Debian keeps them in a folder that is on nobody's PATH.
fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut of_debian: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
        of_debian.sort_by(|one, other| other.cmp(one));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_all = |folder: &PathBuf| {
            ["initdb", "postgres", "pg_isready", "psql"].iter().all(|name| folder.join(name).is_file())
        };
        let mut folders = of_debian.into_iter().chain(std::env::split_paths(&path));
        folders.find(has_all).expect("PostgreSQL is missing; run tests/setup.sh")
    })
}

/// A private authority and a certificate by it for the server. PostgreSQL refuses a key that others may read.
fn make_certificates(folder: &Path) {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "tests of MagicAPI Gateway");
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    file(folder, "ca.pem", &authority_pem);
    file(folder, "server.pem", &server.pem());
    let key = file(folder, "server.key", &key.serialize_pem());
    std::fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
}
