//! coturn's directives, read into [`Conf`] the way coturn understands them: of a repeated one that has a single value, the last
//! counts.

use super::arguments;
use super::conf::Conf;
use super::findings::{FindingKind, Grade};
use super::placeholder;
use super::syntax::Entry;
use super::table::{self, Treatment};

impl Conf {
    pub(super) fn directive(&mut self, entry: &Entry<'_>) {
        let Some((name, grade, treatment)) = table::find(entry.name) else { return self.unknown(entry) };
        self.about = grade;
        if placeholder::is_template(entry.value) {
            return self.template(entry);
        }
        if entry.switch() != Some(false) {
            self.on.insert(name);
        }
        match treatment {
            Treatment::Read(read) => read(self, entry),
            Treatment::Always(what) => match self.switch(entry) {
                Some(true) => self.harmless(entry, what),
                Some(false) => self.note(entry, &format!("it cannot be turned off: {what}")),
                None => {}
            },
            Treatment::Missing(why) => match self.switch(entry) {
                Some(true) => self.lost(entry, why),
                Some(false) => self.harmless(entry, "off, as it always is here"),
                None => {}
            },
            Treatment::Without(_) | Treatment::Part(_) if entry.is_nothing() && !arguments::is_switch(name) => {
                self.harmless(entry, "nothing, or 0, leaves it off, in coturn and here");
            }
            Treatment::Without(why) => self.lost(entry, why),
            Treatment::Part(part) => self.parts.push((entry.spot, name, grade, part)),
            Treatment::Needless(why) => self.harmless(entry, why),
        }
    }

    /// Says what became of directives that belong to others, when all are read.
    pub(super) fn judge_parts(&mut self) {
        for (spot, name, grade, part) in std::mem::take(&mut self.parts) {
            match (part.is_used)(self) {
                true => self.find(Some(spot), name, FindingKind::NotConverted, grade, part.why),
                false => self.find(Some(spot), name, FindingKind::Note, Grade::Harmless, part.unused),
            }
        }
    }

    /// A value that a template's engine was to fill in. Where a directive by its being there means something, it still does.
    fn template(&mut self, entry: &Entry<'_>) {
        match entry.name {
            "listening-ip" => self.names_listening_ip = true,
            "static-auth-secret" | "use-auth-secret" => self.use_auth_secret = true,
            "external-ip" => {
                let message = "whatever starts coturn finds the address, left out: set external-ip = \"auto\" in [relay], and name in \
                               external-ip-sources whom to ask, or write the address";
                return self.invalid(entry, message);
            }
            _ => {}
        }
        let message = "a placeholder that nobody has filled in, left out: import the file that the running server reads, or \
                       write the value by hand";
        self.invalid(entry, message);
    }
}
