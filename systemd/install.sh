#!/bin/sh
# Installs Turnstone as a systemd service, or takes it away again.
#
#   systemd/install.sh [install]            after: cargo build --release
#   systemd/install.sh uninstall [--purge]  ends the server; leaves configuration, state and logs, or takes these away, too.
#                                           PREFIX/share/turnstone/uninstall [--purge] does the same
#   systemd/install.sh files                what a package has: all of it but /etc/turnstone, which is made on the host
#
# PREFIX      where the program goes (default /usr/local)
# SYSCONFDIR  where the configuration goes (default /etc)
# DESTDIR     put in front of every path, for packages; then nothing is started, and no user is made
# BINARY      the program to install (default that of a release's archive, or else target/release/turnstone)
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
prefix=${PREFIX:-/usr/local}
sysconfdir=${SYSCONFDIR:-/etc}
destdir=${DESTDIR:-}
if [ -f "$top/turnstone" ]; then built=$top/turnstone; else built=$top/target/release/turnstone; fi
binary=${BINARY:-$built}

program=$destdir$prefix/bin/turnstone
config=$destdir$sysconfdir/turnstone
unit=$destdir/usr/lib/systemd/system/turnstone.service
sysusers=$destdir/usr/lib/sysusers.d/turnstone.conf
tmpfiles=$destdir/usr/lib/tmpfiles.d/turnstone.conf
manuals=$destdir$prefix/share/man/man1
file_manual=$destdir$prefix/share/man/man5/turnserver.toml.5
bash_completion=$destdir$prefix/share/bash-completion/completions/turnstone
zsh_completion=$destdir$prefix/share/zsh/site-functions/_turnstone
fish_completion=$destdir$prefix/share/fish/vendor_completions.d/turnstone.fish
documents=$destdir$prefix/share/doc/turnstone
share=$destdir$prefix/share/turnstone

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# put MODE FILE TARGET: writes a file through the paths of this installation. The pages have those of /usr/local for certbot's hook and fail2ban's filter.
put() {
    mkdir -p "$(dirname "$3")"
    sed -e "s|/usr/bin/turnstone|$prefix/bin/turnstone|g" -e "s|/usr/share/turnstone|$prefix/share/turnstone|g" \
        -e "s|/usr/local\(/share/turnstone/[cf]\)|$prefix\1|g" -e "s|/etc/turnstone|$sysconfdir/turnstone|g" "$2" >"$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# make MODE TARGET COMMAND...: a file with what the command prints.
make() {
    mode=$1 target=$2
    shift 2
    mkdir -p "$(dirname "$target")"
    "$@" >"$target.new" || { rm -f "$target.new"; fail "$* failed"; }
    chmod "$mode" "$target.new"
    mv -f "$target.new" "$target"
}

# commands_of [COMMAND]: the commands that the program's help, or that of a command, lists.
commands_of() {
    "$binary" "$@" --help | awk '/^Commands:/ { listed = 1; next } /^$/ { listed = 0 } listed && /^  [a-z]/ && $1 != "help" { print $1 }'
}

# generate MANUALS FILE_MANUAL BASH ZSH FISH: manual pages into a folder, that of turnserver.toml, completions into three files.
generate() {
    make 0644 "$1/turnstone.1" "$binary" man
    for command in $(commands_of); do
        make 0644 "$1/turnstone-$command.1" "$binary" man "$command"
        for below in $(commands_of "$command"); do
            make 0644 "$1/turnstone-$command-$below.1" "$binary" man "$command" "$below"
        done
    done
    make 0644 "$2" "$binary" man turnserver.toml
    shift
    make 0644 "$2" "$binary" completions bash
    make 0644 "$3" "$binary" completions zsh
    make 0644 "$4" "$binary" completions fish
}

install_files() {
    mkdir -p "$(dirname "$program")"
    # A new file, so that a running server keeps the program it was started from.
    install -m 0755 "$binary" "$program.new"
    mv -f "$program.new" "$program"
    put 0644 "$here/turnstone.service" "$unit"
    put 0644 "$here/sysusers.d/turnstone.conf" "$sysusers"
    put 0644 "$here/tmpfiles.d/turnstone.conf" "$tmpfiles"
    put 0755 "$here/certbot-deploy-hook" "$share/certbot-deploy-hook"
    put 0644 "$here/fail2ban/turnstone.conf" "$share/fail2ban.conf"
    put 0755 "$here/maintain" "$share/maintain"
    # What a first installation begins with.
    put 0644 "$top/turnserver.toml" "$share/turnserver.toml"
    (cd "$top" && find *.md LICENSE-* docs -type f 2>/dev/null) | while read -r document; do
        case $document in
            *.png) install -D -m 0644 "$top/$document" "$documents/$document" ;;
            *) put 0644 "$top/$document" "$documents/$document" ;;
        esac
    done
    # The pages have links to them.
    for file in turnserver.toml systemd/fail2ban/turnstone.conf; do
        put 0644 "$top/$file" "$documents/$file"
    done
    generate "$manuals" "$file_manual" "$bash_completion" "$zsh_completion" "$fish_completion"
}

install_all() {
    if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
        fail "needs root: run it with sudo"
    fi

    is_upgrade=
    if [ -e "$program" ] && [ -e "$unit" ]; then
        is_upgrade=yes
    fi
    install_files
    # It works without this folder.
    put 0755 "$here/install.sh" "$share/install.sh"
    printf '#!/bin/sh\nPREFIX=%s SYSCONFDIR=%s exec sh %s uninstall "$@"\n' "$prefix" "$sysconfdir" "$prefix/share/turnstone/install.sh" >"$share/uninstall"
    chmod 0755 "$share/uninstall"
    sh "$share/maintain" configure
    if [ -z "$destdir" ]; then
        say_what_next
    fi
}

say_what_next() {
    if [ -d /run/systemd/system ] && systemctl is-active --quiet turnstone; then
        say "The old program still runs. To change over to the new one: systemctl restart turnstone"
        say "The listeners stay open meanwhile. Allocations end, unless [drain] in turnserver.toml gives them time."
    elif [ -n "$is_upgrade" ]; then
        say "Upgraded; the server does not run. To start it: systemctl enable --now turnstone"
    else
        say "Edit $config/turnserver.toml, then: systemctl enable --now turnstone"
    fi
}

uninstall_all() {
    case ${1:-} in
        '' | --purge) ;;
        *) fail "usage: install.sh uninstall [--purge]" ;;
    esac
    if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
        fail "needs root: run it with sudo"
    fi
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
        sh "$share/maintain" stop
        systemctl --quiet disable turnstone 2>/dev/null || true
    fi
    rm -f "$program" "$unit" "$sysusers" "$tmpfiles"
    rm -f "$manuals"/turnstone.1 "$manuals"/turnstone-*.1 "$file_manual" "$bash_completion" "$zsh_completion" "$fish_completion"
    if [ "${1:-}" = --purge ] && [ -z "$destdir" ]; then
        sh "$share/maintain" purge
    fi
    rm -rf "$documents" "$share"
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
    for left in "$config" /var/lib/turnstone /var/log/turnstone; do
        if [ -d "$left" ] && { [ -z "$destdir" ] || [ "$left" = "$config" ]; }; then
            say "left $left"
        fi
    done
    if [ -z "$destdir" ] && getent passwd turnstone >/dev/null; then
        say "left the user turnstone"
    fi
}

case ${1:-install} in
    install | files)
        if [ ! -x "$binary" ]; then
            fail "$binary is missing: run cargo build --release, or set BINARY"
        fi
        ;;
esac
case ${1:-install} in
    install) install_all ;;
    files) install_files ;;
    uninstall) uninstall_all "${2:-}" ;;
    *) fail "usage: install.sh [install|uninstall [--purge]|files]" ;;
esac
