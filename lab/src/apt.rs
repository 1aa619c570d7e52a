//! Where Debian packages come from: the host's own apt configuration, or the default mirror.

use crate::run::{command, read};

const DEFAULT: &str = "http://deb.debian.org/debian";
const DEFAULT_SECURITY: &str = "http://deb.debian.org/debian-security";

/// The sources of both trees.
pub fn sources() -> String {
    let format = "$(CODENAME)|$(COMPONENT)|$(SITE)|$(REPO_URI)";
    let targets = read(&mut command(
        "apt-get",
        ["indextargets", "--format", format, "Created-By: Packages"],
    ))
    .unwrap_or_default();
    let mirror = mirror(&targets, "bookworm").unwrap_or_else(|| DEFAULT.to_owned());
    let security = mirror_of_security(&targets).unwrap_or_else(|| DEFAULT_SECURITY.to_owned());
    format!(
        "deb {mirror} bookworm main\n\
         deb {mirror} bookworm-updates main\n\
         deb {mirror} bookworm-backports main\n\
         deb {security} bookworm-security main\n"
    )
}

fn mirror(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            [name, "main", _site, uri] if name == codename && uri.contains("debian") => {
                Some(uri.trim_end_matches('/').to_owned())
            }
            _ => None,
        }
    })
}

fn mirror_of_security(targets: &str) -> Option<String> {
    mirror(targets, "bookworm-security")
}

/// apt's options inside the trees: small, and through the host's proxy if it has one.
pub fn options() -> Vec<String> {
    let mut options = vec![
        "Acquire::Languages \"none\"".to_owned(),
        "Apt::Install-Recommends \"false\"".to_owned(),
    ];
    let dump = read(&mut command("apt-config", ["dump"])).unwrap_or_default();
    options.extend(proxies(&dump));
    options
}

fn proxies(dump: &str) -> Vec<String> {
    dump.lines()
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with("acquire::http::proxy ") || line.starts_with("acquire::https::proxy ")
        })
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
noble|main|http://archive.ubuntu.com/ubuntu|http://archive.ubuntu.com/ubuntu/
bookworm|contrib|http://mirror.example/debian|http://mirror.example/debian/
bookworm|main|http://mirror.example/debian|http://mirror.example/debian/
bookworm-security|main|http://s.example|http://s.example/debian-security/
";

    #[test]
    fn the_hosts_mirror_is_taken() {
        assert_eq!(
            mirror(TARGETS, "bookworm").unwrap(),
            "http://mirror.example/debian"
        );
        assert_eq!(
            mirror_of_security(TARGETS).unwrap(),
            "http://s.example/debian-security"
        );
        assert_eq!(
            mirror("noble|main|x|http://archive.ubuntu.com/ubuntu/", "bookworm"),
            None
        );
    }

    #[test]
    fn the_hosts_proxy_is_passed_on() {
        let dump = "Acquire::http::Proxy \"http://proxy:3142\";\nAcquire::http::Timeout \"3\";\n";
        assert_eq!(
            proxies(dump),
            ["Acquire::http::Proxy \"http://proxy:3142\""]
        );
    }
}
