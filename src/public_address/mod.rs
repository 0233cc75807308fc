//! Asks others what the public address of a relay is: the metadata service of a cloud, STUN servers, the resolver. Every question has a
//! time limit and every answer a bound; what is no address that a host of the Internet may have is no answer.

mod failure;
mod metadata;
mod resolver;
mod stun;

use std::net::IpAddr;

use crate::addr::Family;
use crate::config::{AddressSource, Finding, FoundBy, StunServer, is_public};

pub(crate) use failure::Failure;
use resolver::Resolver;

/// What kind of source an answer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// The relay's own address.
    Interface,
    /// The resolver.
    Name,
    /// A cloud.
    Metadata,
    /// STUN servers.
    Stun,
}

impl SourceKind {
    /// Those that are asked.
    pub(crate) const ASKED: [Self; 3] = [Self::Name, Self::Metadata, Self::Stun];

    /// For logs, metrics and people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Name => "name",
            Self::Metadata => "metadata",
            Self::Stun => "stun",
        }
    }
}

/// A public address, and who has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The address.
    pub(crate) ip: IpAddr,
    /// From whom.
    pub(crate) source: SourceKind,
}

/// What came of asking one source after the other.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The first good answer.
    pub(crate) answer: Option<Answer>,
    /// Why those before it have none.
    pub(crate) failures: Vec<(SourceKind, Failure)>,
}

/// Asks; one for the life of a server, so that a resolver that hangs is asked once.
#[derive(Default)]
pub(crate) struct Asker {
    resolver: Resolver,
}

impl Asker {
    /// Asks what stands for `bind`, an address of this host, until somebody says it.
    pub(crate) async fn ask(&self, finding: &Finding, bind: IpAddr) -> Asked {
        let mut asked = Asked { answer: None, failures: Vec::new() };
        if let Some(FoundBy::Name(name)) = &finding.by {
            match self.by_name(name, bind).await {
                Ok(answer) => asked.answer = Some(answer),
                Err(failure) => asked.failures.push((SourceKind::Name, failure)),
            }
            return asked;
        }
        for question in questions(&finding.sources) {
            let source = question.source();
            let answer = match question {
                Question::Metadata(cloud) => metadata::ask(cloud, bind).await,
                Question::Stun(servers) => stun::ask(&self.resolver, &servers, bind).await,
            };
            match answer {
                Ok(ip) => {
                    asked.answer = Some(Answer { ip, source });
                    return asked;
                }
                Err(failure) => asked.failures.push((source, failure)),
            }
        }
        asked
    }

    /// A name must have one address of the family, or else, of several, nobody knows which is meant.
    async fn by_name(&self, name: &str, bind: IpAddr) -> Result<Answer, Failure> {
        let family = Family::of(bind);
        let mut found = self.resolver.look_up(name).await?;
        found.retain(|ip| Family::of(*ip) == family);
        match *found {
            // It is the other family's name.
            [] if is_public(bind) => Ok(Answer { ip: bind, source: SourceKind::Interface }),
            [] => Err(Failure::NoAddress { name: name.to_owned(), family }),
            [ip] => failure::public(name, ip, family).map(|ip| Answer { ip, source: SourceKind::Name }),
            _ => Err(Failure::Several { name: name.to_owned(), family }),
        }
    }
}

/// Asks once, for who has no runtime.
pub(crate) fn ask_once(finding: &Finding, bind: IpAddr) -> Asked {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Asker::default().ask(finding, bind)),
        Err(error) => {
            let failure = Failure::Unreachable { who: "anybody".to_owned(), why: error.to_string() };
            Asked { answer: None, failures: vec![(SourceKind::Interface, failure)] }
        }
    }
}

/// What is asked at once.
enum Question<'a> {
    Metadata(crate::config::Cloud),
    /// All that are named, at the place of the first one: they must agree.
    Stun(Vec<&'a StunServer>),
}

impl Question<'_> {
    fn source(&self) -> SourceKind {
        match self {
            Self::Metadata(_) => SourceKind::Metadata,
            Self::Stun(_) => SourceKind::Stun,
        }
    }
}

fn questions(sources: &[AddressSource]) -> Vec<Question<'_>> {
    let mut questions = Vec::new();
    for source in sources {
        match source {
            AddressSource::Metadata(cloud) => questions.push(Question::Metadata(*cloud)),
            AddressSource::Stun(_) if questions.iter().any(|question| matches!(question, Question::Stun(_))) => {}
            AddressSource::Stun(_) => {
                let servers = sources.iter().filter_map(|source| match source {
                    AddressSource::Stun(server) => Some(server),
                    AddressSource::Metadata(_) => None,
                });
                questions.push(Question::Stun(servers.collect()));
            }
        }
    }
    questions
}
