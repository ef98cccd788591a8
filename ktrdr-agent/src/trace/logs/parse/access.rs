//! uvicorn's access log: `127.0.0.1:46842 - "POST /api/v1/trainings/start HTTP/1.1" 200 OK`.

use std::net::{IpAddr, SocketAddr};

use super::{Value, rsplit_at, split_at, split_once};
use crate::trace::model::Key;

/// Client's address, and the fields of the line.
pub type Access = (Option<SocketAddr>, Vec<(Key, Value)>);

/// Takes the line's message apart.
pub fn parse(message: &str) -> Option<Access> {
    let (client, rest) = split_once(message, " - \"")?;
    let (request, status) = split_once(rest, "\" ")?;
    let (method, rest) = split_at(request, b' ')?;
    let (target, version) = rsplit_at(rest, b' ')?;
    let version = version.strip_prefix("HTTP/")?;
    let code = split_at(status, b' ').map_or(status, |(code, _)| code);
    let code: i64 = code.parse().ok().filter(|n| (100..600).contains(n))?;
    let known = method.len() <= 16 && method.bytes().all(|b| b.is_ascii_uppercase());
    if !known || version.len() > 3 {
        return None;
    }
    // uvicorn writes IPv6 addresses without brackets.
    let (address, port) = rsplit_at(client, b':').unwrap_or((client, ""));
    let peer = address
        .parse::<IpAddr>()
        .ok()
        .zip(port.parse::<u16>().ok())
        .map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
    let path = split_at(target, b'?').map_or(target, |(path, _)| path);
    let fields = vec![
        ("client.address".into(), Value::Str(address.into())),
        ("http.request.method".into(), Value::Str(method.into())),
        ("url.path".into(), Value::Str(path.into())),
        ("http.response.status_code".into(), Value::Int(code)),
    ];
    Some((peer, fields))
}
