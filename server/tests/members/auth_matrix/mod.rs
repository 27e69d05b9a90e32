//! Every RPC, called by everybody who may come: what is answered, as a table.
//!
//! This is the program that makes the table, from whatever server it is pointed at; the table in `table.txt` is what
//! etcd 3.7.1 answers. It knows messages and paths, but no rule of who may do what.
//!
//! ```text
//!   rows: calls (calls.rs)      columns: auth off, no token, ..., root, names of certificates
//!   cell: what root prepares ─► the call ─► code and text ─► what root puts back
//! ```

mod calls;
mod requests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use quorate_net::tls::{ClientTls, TlsInfo};
use quorate_proto::etcdserverpb as pb;
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use self::calls::{Call, Row};

/// How long a stream may keep silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The users that come by certificate; the last one is not there.
pub(crate) const CERTIFICATES: [&str; 3] = ["alice", "root", "unknown"];

/// One member, through its two doors.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Where certificates play no part.
    pub(crate) plain: Channel,
    /// One connection for each of [`CERTIFICATES`].
    pub(crate) by_certificate: Vec<Channel>,
}

/// Who comes.
#[derive(Clone, Copy, Debug)]
enum Visitor {
    /// While auth is off.
    Anybody,
    NoToken,
    WrongToken,
    User(&'static str),
    /// By a number of [`CERTIFICATES`].
    Certificate(usize),
}

const COLUMNS: [(&str, Visitor); 10] = [
    ("auth off", Visitor::Anybody),
    ("no token", Visitor::NoToken),
    ("wrong token", Visitor::WrongToken),
    ("stranger", Visitor::User("stranger")),
    ("reader", Visitor::User("reader")),
    ("alice", Visitor::User("alice")),
    ("root", Visitor::User("root")),
    ("CN alice", Visitor::Certificate(0)),
    ("CN root", Visitor::Certificate(1)),
    ("CN unknown", Visitor::Certificate(2)),
];

/// What was answered to whom: rows with a text for each column.
pub(crate) type Table = Vec<(String, Vec<(&'static str, String)>)>;

/// A member on which the matrix runs.
struct Subject {
    doors: Doors,
    /// Of users who have logged in.
    tokens: BTreeMap<&'static str, String>,
    is_enabled: bool,
}

/// Runs all of the matrix on an empty member.
pub(crate) async fn run(doors: Doors) -> Result<Table, String> {
    let mut subject = Subject {
        doors,
        tokens: BTreeMap::new(),
        is_enabled: false,
    };
    for call in calls::furniture() {
        subject.operate(&call).await?;
    }
    let rows = calls::rows();
    let mut table: Table = rows.iter().map(|row| (name(row), Vec::new())).collect();
    for (column, visitor) in COLUMNS {
        for (row, (_, answers)) in rows.iter().zip(&mut table) {
            let answer = subject.cell(row, visitor).await;
            let answer = answer.map_err(|error| format!("{}, {column}: {error}", name(row)))?;
            answers.push((column, answer));
        }
    }
    Ok(table)
}

/// The table as text: for each call the answers, and to whom each is given.
pub(crate) fn render(table: &Table) -> String {
    let mut text = String::new();
    for (name, answers) in table {
        let mut columns: Vec<(&str, Vec<&str>)> = Vec::new();
        for (column, answer) in answers {
            match columns.iter_mut().find(|(known, _)| known == answer) {
                Some((_, columns)) => columns.push(column),
                None => columns.push((answer, vec![column])),
            }
        }
        writeln!(text, "{name}").expect("a string takes anything");
        for (answer, columns) in columns {
            writeln!(text, "    {answer}  <- {}", columns.join(", ")).expect("as before");
        }
    }
    text
}

/// A connection on which a certificate is shown.
pub(crate) async fn connect_as(address: String, info: &TlsInfo) -> Result<Channel, String> {
    let tls = ClientTls::new(info).map_err(|error| error.to_string())?;
    let tls = tls.offering(&["h2"]);
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect("127.0.0.1", stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://member");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| format!("{error:?}"))
}

fn name(row: &Row) -> String {
    match row.case {
        "" => row.call.method.to_owned(),
        case => format!("{}: {case}", row.call.method),
    }
}

impl Subject {
    async fn cell(&mut self, row: &Row, visitor: Visitor) -> Result<String, String> {
        self.enable(!matches!(visitor, Visitor::Anybody)).await?;
        for call in &row.before {
            self.operate(call).await?;
        }
        let token = match visitor {
            Visitor::Anybody | Visitor::NoToken | Visitor::Certificate(_) => None,
            Visitor::WrongToken => Some("invented.1".to_owned()),
            Visitor::User(user) => Some(self.token(user).await?),
        };
        let channel = match visitor {
            Visitor::Certificate(number) => self.doors.by_certificate[number].clone(),
            _ => self.doors.plain.clone(),
        };
        let answer = answer(channel, &row.call, token).await;
        if matches!(
            row.call.method,
            "Auth/AuthEnable" | "Auth/AuthDisable" | "Auth/UserChangePassword"
        ) {
            self.tokens.clear();
            self.is_enabled = self.status().await?;
        }
        for call in &row.after {
            // What the call has not done cannot be undone.
            let _ = self.operate(call).await;
        }
        Ok(match answer {
            Ok(answer) => answer,
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        })
    }

    /// Auth is on afterwards, or it is off.
    async fn enable(&mut self, wanted: bool) -> Result<(), String> {
        if self.is_enabled == wanted {
            return Ok(());
        }
        let call = if wanted {
            calls::call("Auth/AuthEnable", pb::AuthEnableRequest {})
        } else {
            calls::call("Auth/AuthDisable", pb::AuthDisableRequest {})
        };
        self.operate(&call).await?;
        self.tokens.clear();
        self.is_enabled = wanted;
        Ok(())
    }

    async fn status(&self) -> Result<bool, String> {
        let call = calls::call("Auth/AuthStatus", pb::AuthStatusRequest {});
        let answered = first(self.doors.plain.clone(), &call, None).await;
        let message = answered.map_err(|status| status.to_string())?;
        let status = pb::AuthStatusResponse::decode(message.unwrap_or_default());
        Ok(status.map_err(|error| error.to_string())?.enabled)
    }

    /// Makes a call as root, which must succeed.
    async fn operate(&mut self, call: &Call) -> Result<(), String> {
        let token = if self.is_enabled {
            Some(self.token("root").await?)
        } else {
            None
        };
        let answered = first(self.doors.plain.clone(), call, token).await;
        answered
            .map(drop)
            .map_err(|status| format!("root cannot {}: {status}", call.method))
    }

    async fn token(&mut self, user: &'static str) -> Result<String, String> {
        if let Some(token) = self.tokens.get(user) {
            return Ok(token.clone());
        }
        let request = pb::AuthenticateRequest {
            name: user.to_owned(),
            password: requests::password(user),
        };
        let call = calls::call("Auth/Authenticate", request);
        let answered = first(self.doors.plain.clone(), &call, None).await;
        let message = answered.map_err(|status| format!("{user} cannot log in: {status}"))?;
        let response = pb::AuthenticateResponse::decode(message.unwrap_or_default());
        let token = response.map_err(|error| error.to_string())?.token;
        self.tokens.insert(user, token.clone());
        Ok(token)
    }
}

/// What a visitor is told, in words.
async fn answer(channel: Channel, call: &Call, token: Option<String>) -> Result<String, Status> {
    let Some(message) = first(channel, call, token).await? else {
        return Ok("an end without an answer".to_owned());
    };
    if call.method != "Watch/Watch" {
        return Ok("OK".to_owned());
    }
    let watch =
        pb::WatchResponse::decode(message).map_err(|error| Status::data_loss(error.to_string()))?;
    Ok(match (watch.created, watch.canceled) {
        (true, false) => "OK".to_owned(),
        (created, true) => format!(
            "watch {} canceled, created={created}: {}",
            watch.watch_id, watch.cancel_reason
        ),
        (false, false) => format!("{watch:?}"),
    })
}

/// The first message of the answer; of calls that do not go on for ever only once they have ended well.
async fn first(
    channel: Channel,
    call: &Call,
    token: Option<String>,
) -> Result<Option<Bytes>, Status> {
    let stays_open = matches!(call.method, "Watch/Watch" | "Lease/LeaseKeepAlive");
    let goes_on = stays_open || call.method == "v3electionpb.Election/Observe";
    let talk = async {
        let mut grpc = Grpc::new(channel);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let only = tokio_stream::once(Bytes::from(call.message.clone()));
        let method = match call.method.split_once('/') {
            Some((service, _)) if service.contains('.') => format!("/{}", call.method),
            _ => format!("/etcdserverpb.{}", call.method),
        };
        let path = method.parse().expect("the methods are paths");
        let mut request = Request::new(only);
        if let Some(token) = &token {
            let token = token.parse().expect("tokens are ASCII");
            request.metadata_mut().insert("token", token);
        }
        // Who asks once must say that this was all.
        let mut answers = if stays_open {
            let request = request.map(|only| only.chain(tokio_stream::pending()));
            grpc.streaming(request, path, Plain).await?.into_inner()
        } else {
            grpc.streaming(request, path, Plain).await?.into_inner()
        };
        let message = answers.message().await?;
        while !goes_on && answers.message().await?.is_some() {}
        Ok(message)
    };
    let answered = tokio::time::timeout(PATIENCE, talk).await;
    answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("nobody answers")))
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
