//! The metadata services of clouds, at one link-local address over plain HTTP. Clouds map IPv4 addresses only: those of IPv6 are the host's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::addr::Family;
use crate::config::Cloud;

use super::failure::{Failure, public};

const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// How long it may take, all requests together.
const LIMIT: Duration = Duration::from_secs(2);
/// An address needs 15; Azure's answer has the rules of a load balancer, too.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The least that hyper takes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Room for what a service says instead of an address.
const ADDRESS_BYTES_MAX: usize = 64;

/// Asks one cloud.
pub(super) async fn ask(cloud: Cloud, bind: IpAddr) -> Result<IpAddr, Failure> {
    let service = Service { cloud, who: format!("the metadata service of {}", cloud.name()) };
    if !bind.is_ipv4() {
        return Err(Failure::NoAddress { name: service.who, family: Family::V6 });
    }
    let answer = timeout(LIMIT, service.public_address(bind)).await;
    let ip = answer.map_err(|_| Failure::Silent { who: service.who.clone() })??;
    public(&service.who, ip, Family::V4)
}

struct Service {
    cloud: Cloud,
    who: String,
}

impl Service {
    async fn public_address(&self, bind: IpAddr) -> Result<IpAddr, Failure> {
        let get = |path| self.send(Method::GET, path, None);
        match self.cloud {
            Cloud::Aws => {
                let lifetime = ("x-aws-ec2-metadata-token-ttl-seconds", "60");
                let token = self.send(Method::PUT, "/latest/api/token", Some(lifetime)).await?;
                let token = std::str::from_utf8(&token).ok().map(str::trim).filter(|token| !token.is_empty());
                let token = token.ok_or_else(|| self.malformed("no token"))?;
                let path = "/latest/meta-data/public-ipv4";
                self.address(&self.send(Method::GET, path, Some(("x-aws-ec2-metadata-token", token))).await?)
            }
            Cloud::OpenStack => self.address(&get("/latest/meta-data/public-ipv4").await?),
            Cloud::Hetzner => self.address(&get("/hetzner/v1/metadata/public-ipv4").await?),
            Cloud::DigitalOcean => self.address(&get("/metadata/v1/interfaces/public/0/ipv4/address").await?),
            Cloud::Gcp => {
                let path = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
                self.address(&self.send(Method::GET, path, Some(("metadata-flavor", "Google"))).await?)
            }
            Cloud::Azure => {
                // The instance's own page has no address of the present kind ("standard"); that of load balancers has both kinds.
                let path = "/metadata/loadbalancer?api-version=2020-10-01";
                self.of_load_balancer(&self.send(Method::GET, path, Some(("metadata", "true"))).await?, bind)
            }
        }
    }

    /// One request a connection, as there are one or two in minutes.
    async fn send(&self, method: Method, path: &str, header: Option<(&str, &str)>) -> Result<Bytes, Failure> {
        let who = &self.who;
        let failed = |error: hyper::Error| Failure::unreachable(who, &io::Error::other(error));
        let stream = TcpStream::connect(SERVICE).await.map_err(|error| Failure::unreachable(who, &error))?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, SERVICE.ip().to_string())
            .header(CONNECTION, "close");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| self.malformed("what cannot be sent back"))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let (head, body) = answer.into_parts();
            match head.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(self.malformed("404: there is none, or this is another cloud")),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.malformed(
                        "a refusal: is it switched off for this host, or the hop limit too low for a container?",
                    ));
                }
                _ => return Err(self.malformed("a status other than 200")),
            }
            if self.cloud == Cloud::Gcp && head.headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
                return Err(self.malformed("no Metadata-Flavor: Google, so that it is somebody else"));
            }
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => self.malformed("more than 64 KiB"),
                None => Failure::unreachable(who, &io::Error::other(error)),
            })
        };
        tokio::select! {
            answer = exchange => answer,
            // It ends when the exchange does, or fails with it.
            Err(error) = connection => Err(failed(error)),
        }
    }

    fn address(&self, body: &[u8]) -> Result<IpAddr, Failure> {
        let text = body.get(..body.len().min(ADDRESS_BYTES_MAX)).and_then(|text| std::str::from_utf8(text).ok());
        match text.map(str::trim) {
            Some("") => Err(self.malformed("nothing: no public address is mapped to this host")),
            Some(text) if body.len() <= ADDRESS_BYTES_MAX => {
                let ip: Option<Ipv4Addr> = text.parse().ok();
                ip.map(IpAddr::V4).ok_or_else(|| self.malformed("something else than an IPv4 address"))
            }
            _ => Err(self.malformed("something else than an IPv4 address")),
        }
    }

    /// The address that is mapped to ours; where ours is that of a container, the only one.
    fn of_load_balancer(&self, body: &[u8], bind: IpAddr) -> Result<IpAddr, Failure> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| self.malformed("something else than JSON"))?;
        let mapped = answer.pointer("/loadbalancer/publicIpAddresses").and_then(Value::as_array);
        let mapped = mapped.ok_or_else(|| self.malformed("no publicIpAddresses"))?;
        let address = |entry: &Value, field| entry.get(field).and_then(Value::as_str)?.parse::<Ipv4Addr>().ok();
        let ours = mapped.iter().find(|entry| address(entry, "privateIpAddress").map(IpAddr::V4) == Some(bind));
        let only = if let [only] = &**mapped { Some(only) } else { None };
        let found = ours.or(only).and_then(|entry| address(entry, "frontendIpAddress"));
        found.map(IpAddr::V4).ok_or_else(|| self.malformed("no public address for this host"))
    }

    fn malformed(&self, what: &'static str) -> Failure {
        Failure::malformed(&self.who, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(cloud: Cloud) -> Service {
        Service { cloud, who: "it".to_owned() }
    }

    #[test]
    fn an_address_is_all_that_an_answer_may_have() {
        let address = |body: &str| service(Cloud::Aws).address(body.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(address("5.44.1.1\n").as_deref(), Ok("5.44.1.1"));
        let long = "5.44.1.1".to_owned() + &" ".repeat(ADDRESS_BYTES_MAX);
        for body in ["", " \n", "<html>5.44.1.1</html>", "5.44.1.1 5.44.1.2", "5.44.1", "2a00::1", "5.44.1.1:80", &long]
        {
            assert!(address(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn azure_maps_the_address_of_this_host() {
        let of = |body: &str, bind: &str| {
            service(Cloud::Azure).of_load_balancer(body.as_bytes(), bind.parse().unwrap()).map(|ip| ip.to_string())
        };
        let two = r#"{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"51.0.0.1","privateIpAddress":"10.1.0.4"},
            {"frontendIpAddress":"51.0.0.2","privateIpAddress":"10.1.0.5"}],"inboundRules":[]}}"#;
        assert_eq!(of(two, "10.1.0.5").as_deref(), Ok("51.0.0.2"));
        assert!(of(two, "172.17.0.2").is_err());
        let one = r#"{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"51.0.0.1","privateIpAddress":"10.1.0.4"}]}}"#;
        assert_eq!(of(one, "172.17.0.2").as_deref(), Ok("51.0.0.1"));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"loadbalancer":{"publicIpAddresses":[]}}"#,
            r#"{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":4}]}}"#,
        ] {
            assert!(of(body, "10.1.0.4").is_err(), "{body}");
        }
    }
}
