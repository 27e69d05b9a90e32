//! The flags of every command, their `ETCDCTL_` variables, and the session that they lead to.
//!
//! A flag and its variable together are fatal. A variable whose value cannot be read is passed over, as etcdctl does. A
//! flag whose function this version does not have is refused when it would matter.

use std::time::Duration;

use clap::{ArgMatches, Args, parser::ValueSource};
use quorate_net::client::{Client, ClientError, Config, Endpoint, EndpointError, Security};
use quorate_net::srv::{Directory, service_name};
use quorate_net::tls::{TlsError, TlsInfo};

use crate::failure::{Exit, Failure, describe, log_line};
use crate::go::duration;
use crate::go::number::{parse_bool, parse_int};
use crate::output::{Format, Printer};
use crate::password;

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global flags")]
pub(crate) struct GlobalFlags {
    /// gRPC endpoints
    #[arg(long, global = true, action = clap::ArgAction::Append, default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// enable client-side debug logging
    #[arg(long, global = true)]
    debug: bool,
    /// set the output format (fields, json, protobuf, simple, table)
    #[arg(short = 'w', long, global = true, default_value = "simple")]
    write_out: String,
    /// print byte strings as hex encoded strings
    #[arg(long, global = true)]
    hex: bool,
    /// dial timeout for client connections
    #[arg(long, global = true, default_value = "2s", value_parser = duration::parse)]
    dial_timeout: Duration,
    /// timeout for short running command (excluding dial timeout)
    #[arg(long, global = true, default_value = "5s", value_parser = duration::parse)]
    command_timeout: Duration,
    /// keepalive time for client connections
    #[arg(long, global = true, default_value = "2s", value_parser = duration::parse)]
    keepalive_time: Duration,
    /// keepalive timeout for client connections
    #[arg(long, global = true, default_value = "6s", value_parser = duration::parse)]
    keepalive_timeout: Duration,
    /// client-side request send limit in bytes (0 means 2 MiB)
    #[arg(long, global = true, default_value = "0", value_parser = go_int)]
    max_request_bytes: i64,
    /// client-side response receive limit in bytes (0 means 2^31 - 1)
    #[arg(long, global = true, default_value = "0", value_parser = go_int)]
    max_recv_bytes: i64,
    /// disable transport security for client connections
    #[arg(long, global = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", value_parser = parse_bool)]
    insecure_transport: bool,
    /// skip server certificate verification
    #[arg(long, global = true)]
    insecure_skip_tls_verify: bool,
    /// accept insecure SRV records describing cluster endpoints
    #[arg(long, global = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", value_parser = parse_bool)]
    insecure_discovery: bool,
    /// client certificate file
    #[arg(long, global = true)]
    cert: Option<String>,
    /// client key file
    #[arg(long, global = true)]
    key: Option<String>,
    /// CA bundle to verify servers with
    #[arg(long, global = true)]
    cacert: Option<String>,
    /// JWT token used for authentication
    #[arg(long, global = true, default_value = "")]
    auth_jwt_token: String,
    /// username[:password] for authentication
    #[arg(long, global = true, default_value = "")]
    user: String,
    /// password for authentication
    #[arg(long, global = true, default_value = "")]
    password: String,
    /// domain name to query for SRV records describing cluster endpoints
    #[arg(short = 'd', long, global = true, default_value = "")]
    discovery_srv: String,
    /// service name to query when using DNS discovery
    #[arg(long, global = true, default_value = "")]
    discovery_srv_name: String,
}

/// The names of the flags in order; `ETCDCTL_` and the name in capitals is the variable.
const NAMES: [&str; 21] = [
    "auth-jwt-token",
    "cacert",
    "cert",
    "command-timeout",
    "debug",
    "dial-timeout",
    "discovery-srv",
    "discovery-srv-name",
    "endpoints",
    "hex",
    "insecure-discovery",
    "insecure-skip-tls-verify",
    "insecure-transport",
    "keepalive-time",
    "keepalive-timeout",
    "key",
    "max-recv-bytes",
    "max-request-bytes",
    "password",
    "user",
    "write-out",
];

/// An integer flag's value, with pflag's prefixes.
pub(crate) fn go_int(text: &str) -> Result<i64, String> {
    parse_int(text.as_bytes(), 0)
}

impl GlobalFlags {
    /// Takes a value from a variable.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || value.to_string();
        match name {
            "auth-jwt-token" => self.auth_jwt_token = text(),
            "cacert" => self.cacert = Some(text()),
            "cert" => self.cert = Some(text()),
            "command-timeout" => self.command_timeout = duration::parse(value)?,
            "debug" => self.debug = parse_bool(value)?,
            "dial-timeout" => self.dial_timeout = duration::parse(value)?,
            "discovery-srv" => self.discovery_srv = text(),
            "discovery-srv-name" => self.discovery_srv_name = text(),
            "endpoints" => self.endpoints = vec![text()],
            "hex" => self.hex = parse_bool(value)?,
            "insecure-discovery" => self.insecure_discovery = parse_bool(value)?,
            "insecure-skip-tls-verify" => self.insecure_skip_tls_verify = parse_bool(value)?,
            "insecure-transport" => self.insecure_transport = parse_bool(value)?,
            "keepalive-time" => self.keepalive_time = duration::parse(value)?,
            "keepalive-timeout" => self.keepalive_timeout = duration::parse(value)?,
            "key" => self.key = Some(text()),
            "max-recv-bytes" => self.max_recv_bytes = go_int(value)?,
            "max-request-bytes" => self.max_request_bytes = go_int(value)?,
            "password" => self.password = text(),
            "user" => self.user = text(),
            "write-out" => self.write_out = text(),
            _ => unreachable!("a name of the list"),
        }
        Ok(())
    }

    /// The value as `--debug` shows it.
    fn show(&self, name: &str) -> String {
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        match name {
            "auth-jwt-token" => self.auth_jwt_token.clone(),
            "cacert" => optional(&self.cacert),
            "cert" => optional(&self.cert),
            "command-timeout" => duration::format(self.command_timeout),
            "debug" => self.debug.to_string(),
            "dial-timeout" => duration::format(self.dial_timeout),
            "discovery-srv" => self.discovery_srv.clone(),
            "discovery-srv-name" => self.discovery_srv_name.clone(),
            "endpoints" => format!("[{}]", self.endpoint_texts().join(",")),
            "hex" => self.hex.to_string(),
            "insecure-discovery" => self.insecure_discovery.to_string(),
            "insecure-skip-tls-verify" => self.insecure_skip_tls_verify.to_string(),
            "insecure-transport" => self.insecure_transport.to_string(),
            "keepalive-time" => duration::format(self.keepalive_time),
            "keepalive-timeout" => duration::format(self.keepalive_timeout),
            "key" => optional(&self.key),
            "max-recv-bytes" => self.max_recv_bytes.to_string(),
            "max-request-bytes" => self.max_request_bytes.to_string(),
            "password" => self.password.clone(),
            "user" => self.user.clone(),
            "write-out" => self.write_out.clone(),
            _ => unreachable!("a name of the list"),
        }
    }

    fn endpoint_texts(&self) -> Vec<String> {
        let texts = self.endpoints.iter().flat_map(|text| text.split(','));
        texts
            .map(|text| text.trim().to_string())
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// How servers are recognised.
    fn security(&self) -> Result<Security, Failure> {
        let files = [
            ("cert", &self.cert),
            ("key", &self.key),
            ("cacert", &self.cacert),
        ];
        let empty = |(name, file): &(&str, &Option<String>)| {
            (file.as_deref() == Some(""))
                .then(|| format!("empty string is passed to --{name} option"))
        };
        if let Some(words) = files.iter().find_map(empty) {
            return Err(Failure::arguments(words));
        }
        let is_given = files.iter().any(|(_, file)| file.is_some());
        let is_given = is_given || !self.server_name().is_empty();
        if !is_given && self.insecure_transport && !self.insecure_skip_tls_verify {
            return Ok(Security::default());
        }
        let text = |file: &Option<String>| file.clone().unwrap_or_default();
        let info = TlsInfo {
            cert_file: text(&self.cert),
            key_file: text(&self.key),
            trusted_ca_file: text(&self.cacert),
            insecure_skip_verify: self.insecure_skip_tls_verify,
            server_name: self.server_name().to_owned(),
            ..TlsInfo::default()
        };
        Security::tls(&info).map_err(|error| match error {
            // Go does not say in which file.
            TlsError::Content { words, .. } => Failure::arguments(words),
            other => Failure::arguments(other),
        })
    }

    /// Where the servers are: DNS says it, or `--endpoints`.
    async fn found_endpoints(
        &self,
        directory: impl FnOnce() -> Directory,
    ) -> Result<Vec<String>, Failure> {
        if self.discovery_srv.is_empty() {
            return Ok(self.endpoint_texts());
        }
        let mut endpoints = Vec::new();
        let mut errors = Vec::new();
        let directory = directory();
        for (is_tls, scheme) in [(true, "https"), (false, "http")] {
            let service = service_name("etcd-client", is_tls, &self.discovery_srv_name);
            match directory.places(&service, &self.discovery_srv).await {
                Ok(places) => endpoints.extend(
                    places
                        .iter()
                        .map(|place| format!("{scheme}://{}:{}", place.host, place.port)),
                ),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if let [secure, plain] = &errors[..] {
            let words = format!("dns lookup errors: {secure} and {plain}");
            return Err(Failure::new(Exit::General, words));
        }
        if !self.insecure_discovery {
            endpoints.retain(|endpoint| {
                let is_plain = endpoint.starts_with("http://");
                if is_plain {
                    eprintln!("ignoring discovered insecure endpoint {endpoint:?}");
                }
                !is_plain
            });
        }
        if endpoints.is_empty() {
            endpoints = self.endpoint_texts();
        }
        Ok(endpoints)
    }

    /// Whose certificate is expected: the domain's that named the servers, if it is not trusted blindly.
    fn server_name(&self) -> &str {
        if self.insecure_discovery {
            ""
        } else {
            &self.discovery_srv
        }
    }
}

/// How long a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// `--command-timeout`.
    Short,
    /// Until it is done.
    Endless,
}

/// The global flags as given; becomes a [`Session`] when a command has read its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    flags: GlobalFlags,
    /// The flags that stood on the command line.
    given: Vec<&'static str>,
}

/// A client and a printer.
#[derive(Debug)]
pub(crate) struct Session {
    /// Asks.
    pub(crate) client: Client,
    /// Shows.
    pub(crate) printer: Printer,
    /// `--dial-timeout`.
    pub(crate) dial_timeout: Duration,
}

impl Context {
    /// Remembers which flags were given.
    pub(crate) fn new(flags: GlobalFlags, matches: &ArgMatches) -> Self {
        let is_given = |name: &&str| {
            matches.value_source(&name.replace('-', "_")) == Some(ValueSource::CommandLine)
        };
        let given = NAMES.into_iter().filter(is_given).collect();
        Self { flags, given }
    }

    /// `--command-timeout` for a command that takes its time unless it is said.
    pub(crate) fn command_timeout_given(&self) -> Option<Duration> {
        let is_given = self.given.contains(&"command-timeout");
        is_given.then_some(self.flags.command_timeout)
    }

    /// Reads the environment, checks all, and makes a client. Nothing is connected yet, unless a user must be
    /// authenticated.
    pub(crate) async fn open(&self, patience: Patience) -> Result<Session, Failure> {
        self.open_with(patience, &[]).await
    }

    /// As [`Context::open`], with further variables that are not worth a warning.
    pub(crate) async fn open_with(
        &self,
        patience: Patience,
        known_variables: &[&str],
    ) -> Result<Session, Failure> {
        let mut flags = self.flags.clone();
        self.apply_environment(&mut flags, known_variables)?;
        if flags.debug {
            for name in NAMES {
                eprintln!("{}={}", variable(name), flags.show(name));
            }
        }
        let printer = Printer {
            format: Format::named(&flags.write_out)?,
            is_hex: flags.hex,
            values_only: false,
        };
        let endpoints = flags.found_endpoints(Directory::system).await?;
        let config = config(&flags, &endpoints, patience)?;
        let client = connect(&flags, config).await?;
        Ok(Session {
            client,
            printer,
            dial_timeout: flags.dial_timeout,
        })
    }

    fn apply_environment(
        &self,
        flags: &mut GlobalFlags,
        known_variables: &[&str],
    ) -> Result<(), Failure> {
        for name in NAMES {
            let variable = variable(name);
            let Some(value) = std::env::var_os(&variable) else {
                continue;
            };
            if self.given.contains(&name) {
                let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                               (either unset environment variable or disable flag))";
                log_line("fatal", message, "environment-variable", &variable);
                return Err(Failure::said(Exit::General, String::new()));
            }
            let value = value.to_string_lossy();
            if !value.is_empty() {
                // etcdctl goes on with the default.
                let _ = flags.set(name, &value);
            }
        }
        let is_known = |name: &str| {
            NAMES.iter().any(|flag| variable(flag) == name) || known_variables.contains(&name)
        };
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("ETCDCTL_") && !is_known(&name) {
                let value = format!("{name}={}", value.to_string_lossy());
                let message = "unrecognized environment variable";
                log_line("warn", message, "environment-variable", &value);
            }
        }
        Ok(())
    }
}

fn variable(name: &str) -> String {
    format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_"))
}

fn config(flags: &GlobalFlags, texts: &[String], patience: Patience) -> Result<Config, Failure> {
    let endpoints: Result<Vec<Endpoint>, EndpointError> =
        texts.iter().map(|text| text.parse()).collect();
    let limit = |value: i64, default: usize| match usize::try_from(value) {
        Ok(0) | Err(_) => default,
        Ok(value) => value,
    };
    let defaults = Config::default();
    Ok(Config {
        endpoints: endpoints.map_err(Failure::arguments)?,
        dial_timeout: flags.dial_timeout,
        call_timeout: match patience {
            Patience::Short => Some(flags.command_timeout),
            Patience::Endless => None,
        },
        keep_alive: Some((flags.keepalive_time, flags.keepalive_timeout)),
        request_bytes_max: limit(flags.max_request_bytes, defaults.request_bytes_max),
        response_bytes_max: limit(flags.max_recv_bytes, defaults.response_bytes_max),
        token: Some(flags.auth_jwt_token.clone()).filter(|token| !token.is_empty()),
        security: flags.security()?,
    })
}

/// Makes the client, as a user if one is named.
async fn connect(flags: &GlobalFlags, config: Config) -> Result<Client, Failure> {
    let refuse = |error: ClientError| match error {
        ClientError::NoEndpoints => {
            Failure::new(Exit::Connection, "etcdclient: no available endpoints")
        }
        error => Failure::new(Exit::Connection, describe(&error)),
    };
    if flags.user.is_empty() || config.token.is_some() {
        return Client::new(config).map_err(refuse);
    }
    let (name, password) = if flags.password.is_empty() {
        match flags.user.split_once(':') {
            Some((name, password)) => (name, password.to_string()),
            None => (flags.user.as_str(), password::of_caller()?),
        }
    } else {
        (flags.user.as_str(), flags.password.clone())
    };
    // Authenticating has the dial timeout, whatever the command's patience is.
    let guest = Config {
        call_timeout: Some(config.dial_timeout),
        ..config.clone()
    };
    let guest = Client::new(guest).map_err(refuse)?;
    match guest.authenticate(name, &password).await {
        Ok(token) => Client::new(Config {
            token: Some(token),
            ..config
        })
        .map_err(refuse),
        Err(ClientError::Status(status))
            if status.message() == "etcdserver: authentication is not enabled" =>
        {
            Client::new(config).map_err(refuse)
        }
        Err(error) => Err(refuse(error)),
    }
}
