//! From the settings to the server: where it is, who logs in, how it is trusted.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use exporter_kit::{
    settings::{self, Secret},
    tls::Tls,
};
use plugin_api::InitError;
use rustls::ClientConfig;
use tokio_postgres::config::{Config as Connection, Host, SslMode as Encryption};

use crate::config::{Config, SslMode};

/// Everything it takes to connect.
#[derive(Clone)]
pub struct Target {
    /// Servers, login, database.
    pub connection: Connection,
    /// How the certificate is checked, if there is one.
    pub tls: ClientConfig,
    /// Servers and database, for messages.
    pub place: String,
    /// Longest time to connect and log in, to all servers in turn.
    pub connect_timeout: Duration,
}

/// A connection that was idle so long is probed: firewalls forget those.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Data that was not acknowledged for so long breaks the connection, long before the system would.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

impl Target {
    /// The server that the settings name.
    ///
    /// # Errors
    /// When they name none, contradict themselves, or name files that cannot be read.
    pub fn of(config: &Config) -> Result<Self, InitError> {
        let url = config.url.as_ref().map(Secret::expose).filter(|url| !url.trim().is_empty());
        let (mut connection, from_url) = match url {
            Some(url) => read_url(url.trim())?,
            None => (Connection::new(), UrlTls::default()),
        };
        add_parts(&mut connection, config)?;
        if connection.get_hosts().is_empty() {
            return Err(InitError::invalid_config(
                "no server is named: set url (or DATABASE_URL) to postgres://user:password@host:5432/database, or \
                 host (or POSTGRES_HOST)",
            ));
        }
        let mode = one("sslmode", from_url.mode, config.sslmode)?.unwrap_or(SslMode::Prefer);
        connection.ssl_mode(match mode {
            SslMode::Disable => Encryption::Disable,
            SslMode::Prefer => Encryption::Prefer,
            SslMode::Require | SslMode::VerifyFull => Encryption::Require,
        });
        let tls = client_config(mode, from_url.ca_file, &config.tls)?;
        let connect_timeout = *connection.get_connect_timeout().unwrap_or(&config.connect_timeout.0);
        connection
            .connect_timeout(connect_timeout)
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(UNACKNOWLEDGED);
        if connection.get_application_name().is_none() {
            connection.application_name(&config.application_name);
        }
        let servers = u32::try_from(connection.get_hosts().len()).unwrap_or(1);
        let connect_timeout = connect_timeout.saturating_mul(servers);
        let place = place(&connection);
        Ok(Self { connection, tls, place, connect_timeout })
    }
}

/// What a URL says that the client library does not know.
#[derive(Debug, Default, PartialEq, Eq)]
struct UrlTls {
    mode: Option<SslMode>,
    ca_file: Option<PathBuf>,
}

/// The client's own words on a bad URL quote it, and it holds a password.
fn read_url(url: &str) -> Result<(Connection, UrlTls), InitError> {
    let bad = |what: &str| InitError::invalid_config(format!("url: {what}"));
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(bad("write postgres://user:password@host:5432/database"));
    }
    let (address, options) = url.split_once('?').unwrap_or((url, ""));
    let (mut kept, mut tls) = (Vec::new(), UrlTls::default());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sslmode", mode)) => tls.mode = Some(read_mode(mode).ok_or_else(|| bad(BAD_MODE))?),
            // `system` is libpq's name for what is trusted here anyway.
            Some(("sslrootcert", "system")) => tls.mode = Some(SslMode::VerifyFull),
            Some(("sslrootcert", file)) => tls.ca_file = Some(file.into()),
            _ => kept.push(option),
        }
    }
    let plain = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    let connection = plain.parse().map_err(|_| {
        bad(
            "it cannot be read: write postgres://user:password@host:5432/database?option=value, with special \
             characters in user and password percent-encoded (`@` as %40, `/` as %2F, `?` as %3F)",
        )
    })?;
    Ok((connection, tls))
}

const BAD_MODE: &str = "sslmode is disable, prefer, require or verify-full";

/// The modes of libpq. `allow` may encrypt, as `prefer` does; `verify-ca` is not weaker here than `verify-full`.
fn read_mode(text: &str) -> Option<SslMode> {
    Some(match text {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" | "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

/// Adds what the URL does not say.
fn add_parts(connection: &mut Connection, config: &Config) -> Result<(), InitError> {
    let host = config.host.as_deref().filter(|host| !host.is_empty());
    let of_url = (!connection.get_hosts().is_empty()).then(|| hosts(connection));
    if let Some(host) = one("host", of_url.clone(), host.map(str::to_owned))?.filter(|_| of_url.is_none()) {
        connection.host(host);
    }
    let of_url = connection.get_ports().first().copied();
    if let Some(port) = one("port", of_url, config.port)?.filter(|_| of_url.is_none()) {
        connection.port(port);
    }
    if let Some(user) = one("user", connection.get_user().map(str::to_owned), config.user.clone())? {
        connection.user(user);
    }
    if let Some(name) = one("database", connection.get_dbname().map(str::to_owned), config.database.clone())?
    {
        connection.dbname(name);
    }
    let password = settings::secret(
        ("password", config.password.as_ref()),
        ("password_file", config.password_file.as_deref()),
    )?;
    // A POSTGRES_PASSWORD in the environment is often that of a database next door: it contradicts nothing.
    if let Some(password) = password.filter(|_| connection.get_password().is_none()) {
        connection.password(password.expose());
    }
    Ok(())
}

/// The value of the URL or of the setting, which must not be two different ones.
fn one<T: PartialEq>(key: &str, of_url: Option<T>, setting: Option<T>) -> Result<Option<T>, InitError> {
    match (of_url, setting) {
        (Some(url), Some(setting)) if url != setting => Err(InitError::invalid_config(format!(
            "{key} and url say different things; keep one (environment variables such as DATABASE_URL count too)"
        ))),
        (of_url, setting) => Ok(of_url.or(setting)),
    }
}

fn client_config(mode: SslMode, ca_file: Option<PathBuf>, tls: &Tls) -> Result<ClientConfig, InitError> {
    let ca_file = one("tls.ca_file", ca_file, tls.ca_file.clone())?;
    let checks = mode == SslMode::VerifyFull || ca_file.is_some();
    if checks && tls.insecure_skip_verify {
        return Err(InitError::invalid_config(
            "tls.insecure_skip_verify contradicts sslmode = \"verify-full\" and tls.ca_file; keep one",
        ));
    }
    let tls = Tls { ca_file, insecure_skip_verify: false, ..tls.clone() };
    if checks { tls.client_config() } else { tls.unchecked_client_config() }
}

fn hosts(connection: &Connection) -> String {
    let names = connection.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    names.collect::<Vec<_>>().join(",")
}

/// `host:port/database`, without the login.
fn place(connection: &Connection) -> String {
    let mut place = hosts(connection);
    let ports: Vec<String> = connection.get_ports().iter().map(ToString::to_string).collect();
    let ports = if ports.is_empty() { "5432".to_owned() } else { ports.join(",") };
    // Writing to a string cannot fail.
    let _ = write!(place, ":{ports}");
    if let Some(database) = connection.get_dbname().or(connection.get_user()) {
        let _ = write!(place, "/{database}");
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(settings: &str) -> Result<Target, String> {
        let config: Config = serde_json::from_str(settings).unwrap();
        Target::of(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn url_and_parts_name_the_same_server() {
        let parts = r#"{"host":"db","port":5433,"user":"app","password":"p@ss","database":"logs"}"#;
        let by_parts = target(parts).unwrap();
        let by_url = target(r#"{"url":"postgres://app:p%40ss@db:5433/logs","password":"other"}"#).unwrap();
        let mixed =
            target(r#"{"url":"postgresql://app@db:5433/logs","password":"p@ss","host":"db"}"#).unwrap();
        assert_eq!(by_parts.connection, by_url.connection);
        assert_eq!(by_parts.connection, mixed.connection);
        assert_eq!(by_parts.place, "db:5433/logs");
        assert_eq!(target(r#"{"host":"/run/pg","user":"app"}"#).unwrap().place, "/run/pg:5432/app");
        let several = target(r#"{"url":"postgres://a@b:1,c:2/d?target_session_attrs=read-write"}"#).unwrap();
        assert_eq!(several.place, "b,c:1,2/d");
    }

    #[test]
    fn what_the_url_says_of_the_connection_goes_before_the_defaults() {
        let url = r#"{"url":"postgres://a@b,c/d?connect_timeout=3&application_name=e"}"#;
        let target = target(url).unwrap();
        assert_eq!(target.connection.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(target.connection.get_application_name(), Some("e"));
        assert_eq!(target.connect_timeout, Duration::from_secs(6), "three seconds for each server");
    }

    #[test]
    fn sslmode_is_that_of_the_url_or_of_the_setting() {
        for (settings, expected) in [
            (r#"{"host":"a"}"#, Encryption::Prefer),
            (r#"{"host":"a","sslmode":"disable"}"#, Encryption::Disable),
            (r#"{"url":"postgres://a?sslmode=require&connect_timeout=3"}"#, Encryption::Require),
            (r#"{"url":"postgres://a/b?sslmode=verify-ca","sslmode":"verify-full"}"#, Encryption::Require),
            (r#"{"url":"postgres://a/b?sslrootcert=system"}"#, Encryption::Require),
        ] {
            assert_eq!(target(settings).unwrap().connection.get_ssl_mode(), expected, "{settings}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_no_password_is_told() {
        for (settings, expected) in [
            ("{}", "no server is named: set url (or DATABASE_URL)"),
            (r#"{"url":" "}"#, "no server is named"),
            (r#"{"url":"mysql://a:hunter2@b/c"}"#, "url: write postgres://"),
            (r#"{"url":"postgres://a:hunter2@b/c?hunter2"}"#, "percent-encoded"),
            (r#"{"url":"postgres://a:hunter2@b:port/c"}"#, "url: it cannot be read"),
            (r#"{"url":"postgres://a:hunter2@b/c?sslmode=on"}"#, "url: sslmode is disable, prefer"),
            (r#"{"url":"postgres://a:hunter2@b/c","host":"d"}"#, "host and url say different things"),
            (r#"{"url":"postgres://a:hunter2@b/c","port":5432,"user":"x"}"#, "user and url say different"),
            (r#"{"url":"postgres://a:hunter2@b/c?sslmode=require","sslmode":"prefer"}"#, "sslmode and url"),
            (
                r#"{"host":"b","sslmode":"verify-full","tls":{"insecure_skip_verify":true}}"#,
                "insecure_skip_verify contradicts",
            ),
            (
                r#"{"url":"postgres://a:hunter2@b/c?sslrootcert=/no/such"}"#,
                "tls.ca_file: cannot use /no/such",
            ),
        ] {
            let error = target(settings).map(|target| target.place).unwrap_err();
            assert!(error.contains(expected), "{settings}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }
}
