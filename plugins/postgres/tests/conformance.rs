//! The conformance suite over a real PostgreSQL: records are refused by its own means, connections by a relay.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};

use end_to_end::{Database, Postgres};
use exporter_testkit::{
    conformance::{Backend, Behaviour, Unsupported},
    conformance_tests,
    relay::{Mode, Relay},
};
use postgres_exporter::{
    PostgresExporter,
    table::{self, Table},
};
use serde_json::json;
use tokio::runtime::Runtime;

conformance_tests!(PostgresExporter, Server::start);

struct Server {
    database: Database,
    relay: Relay,
    runtime: Runtime,
}

/// The number in an id's last four hexadecimal digits.
const NUMBER: &str = "(get_byte(uuid_send(id), 14) * 256 + get_byte(uuid_send(id), 15))";

/// As many records can be put off, each once. A sequence is the only thing that a transaction's rollback leaves as it
/// is, so there is one for each.
const PUT_OFF: &str = "
DO $$ BEGIN FOR n IN 0..199 LOOP EXECUTE 'CREATE SEQUENCE put_off_' || n; END LOOP; END $$;
CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    n int;
    is_new boolean := false;
BEGIN
    FOR n IN SELECT NUMBER FROM added LOOP
        IF n % TG_ARGV[0]::int = 1 AND nextval('put_off_' || n) = 1 THEN is_new := true; END IF;
    END LOOP;
    IF is_new THEN RAISE EXCEPTION 'busy' USING ERRCODE = 'serialization_failure'; END IF;
    RETURN NULL;
END $$;";

/// A record that is put off for ever. The server thinks about it for so many seconds first.
const NEVER: &str = "
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_sleep(TG_ARGV[0]::float);
    RAISE EXCEPTION 'busy' USING ERRCODE = 'serialization_failure';
END $$;";

/// Longer than the suite waits for a call; and then no longer than it must, since the statement goes on without its
/// client, and keeps others from writing the same records.
const STALL: &str = "1.2";

impl Server {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Postgres::shared().database());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, database.port()));
        let relay = Relay::before(address).unwrap();
        let create = table::create(&Table::parse("logs").unwrap(), false);
        let server = Self { database, relay, runtime };
        server.execute(&format!("SET ROLE {}; {create}", Postgres::USER));
        server.execute(&PUT_OFF.replace("NUMBER", NUMBER));
        server.execute(NEVER);
        server
    }

    fn execute(&self, sql: &str) {
        self.runtime.block_on(self.database.execute(sql));
    }

    fn put_off_every(&self, divisor: u32) {
        self.execute(&format!(
            "CREATE TRIGGER put_off AFTER INSERT ON logs REFERENCING NEW TABLE AS added
             FOR EACH STATEMENT EXECUTE FUNCTION put_off({divisor})"
        ));
    }

    fn never_take_one(&self, seconds: &str) {
        let (one, number) = (Behaviour::ONE, NUMBER.replace("(id)", "(NEW.id)"));
        self.execute(&format!(
            "CREATE TRIGGER never BEFORE INSERT ON logs FOR EACH ROW WHEN ({number} = {one})
             EXECUTE FUNCTION never({seconds})"
        ));
    }

    fn refuse(&self, divisor: u32, remainder: u32) {
        self.execute(&format!(
            "ALTER TABLE logs ADD CONSTRAINT refused CHECK ({NUMBER} % {divisor} <> {remainder}) NOT VALID"
        ));
    }
}

impl Backend for Server {
    fn config(&self) -> String {
        let url = self.database.url_of(Postgres::USER);
        let port = self.relay.address().port();
        let url = url.replace(&format!(":{}/", self.database.port()), &format!(":{port}/"));
        json!({ "url": url, "table": "logs", "create_table": false }).to_string()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        if behaviour == Behaviour::Throttle {
            return Err(Unsupported("PostgreSQL names no time to come back at"));
        }
        self.relay.set(match behaviour {
            Behaviour::Hang => Mode::Hang,
            Behaviour::Down => Mode::Refuse,
            // More than a TLS handshake, a login and the statement; much less than a batch.
            Behaviour::CutAnswer => Mode::CutAnswer { after: 16 * 1024, pass: 0 },
            _ => Mode::Pass,
        });
        self.execute(
            "ALTER TABLE IF EXISTS elsewhere RENAME TO logs;
             DROP TRIGGER IF EXISTS put_off ON logs; DROP TRIGGER IF EXISTS never ON logs;
             ALTER TABLE logs DROP CONSTRAINT IF EXISTS refused",
        );
        match behaviour {
            Behaviour::RetryHalf => self.put_off_every(2),
            Behaviour::RejectHalf => self.refuse(2, 1),
            Behaviour::RetryOne => self.never_take_one("0"),
            Behaviour::StallOne => self.never_take_one(STALL),
            Behaviour::NotFound => self.execute("ALTER TABLE logs RENAME TO elsewhere"),
            Behaviour::Thirds => {
                self.put_off_every(3);
                self.refuse(3, 2);
            }
            _ => {}
        }
        Ok(())
    }

    fn holds(&mut self) -> Vec<String> {
        let rows = self.runtime.block_on(self.database.rows("SELECT id::text FROM logs"));
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}
