// Package naming says which slugs a tenant may have. A slug is a host label that people read and trust, so it promises that one
// which looks like part of the platform, like another alphabet's letters, or like no label at all is refused, with the reason. It
// relies on the database for who has which slug already.
package naming

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"a3os.app/libs/fault"
)

// slug leaves room below DNS's 63 octets, and begins with a letter so that no slug reads as a number or an address.
var slug = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$`)

// reserved labels mean something to browsers, mail, certificate authorities (RFC 2142, CA/B baseline requirements §3.2.2.4.4) or
// to us. The list is sorted.
var reserved = []string{
	"a3", "a3os", "abuse", "accessos", "account", "accounts", "admin", "administrator", "api", "app", "apps", "assets", "audit",
	"auth", "autoconfig", "autodiscover", "billing", "blog", "broadcasthost", "cdn", "console", "control", "dashboard", "dev",
	"discovery", "discovery-worker", "dns", "docs", "email", "fleet", "ftp", "gateway", "git", "grpc", "health", "healthz", "help",
	"host", "hostmaster", "iam", "id", "imap", "info", "integrations", "internal", "invalid", "is", "isatap", "issuer", "it",
	"local", "localdomain", "localhost", "login", "logout", "mail", "master", "metadata", "metrics", "mobile", "monitoring", "mta-sts",
	"news", "no-reply", "noc", "none", "noreply", "ns", "ns1", "ns2", "null", "oauth", "oauth2", "oidc", "operator", "ops", "plane",
	"pop", "pop3", "portal", "postgres", "postmaster", "prod", "production", "proxy", "public", "registry", "root", "secure",
	"security", "shop", "signin", "signup", "smtp", "ssl", "ssladmin", "sslwebmaster", "sso", "staging", "static", "status", "store",
	"support", "sysadmin", "system", "team", "tenant", "tenants", "test", "tls", "tnt", "undefined", "usenet", "uucp", "vpn", "webmail",
	"webmaster", "workload", "wpad", "ws", "wsp", "www", "www1", "www2", "www3",
}

// Check refuses a slug that no tenant may have.
func Check(s string) error {
	switch {
	case !slug.MatchString(s):
		return fault.New(fault.InvalidArgument, "the slug must be 1 to 40 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen")
	case strings.Contains(s, "--"):
		// xn-- carries letters of other alphabets, which can look like ours; RFC 5890 reserves every other ??-- as well.
		return fault.New(fault.InvalidArgument, "the slug must not have two hyphens in a row: such names can show as look-alike letters")
	}
	switch word := readsAs(s); word {
	case "":
		return nil
	case s:
		return fault.New(fault.InvalidArgument, "the slug %q is reserved: choose another", s)
	default:
		return fault.New(fault.InvalidArgument, "the slug %q reads as %q, which is reserved: choose another", s, word)
	}
}

// readsAs is the reserved word that a slug is, or that a reader takes it for: `adm1n`, `log-in`, `rnail`; empty for none.
func readsAs(s string) string {
	if slices.Contains(reserved, s) {
		return s
	}
	for _, reading := range append(readings(s), readings(alsoDigits.Replace(s))...) {
		if word := reads()[reading]; word != "" {
			return word
		}
	}
	return ""
}

// alsoDigits are spelt for letters by who wants to be taken for somebody. They aren't where two tenants are compared: `store3` is another
// store than `storee`.
var alsoDigits = strings.NewReplacer("3", "e", "5", "s")

// reads are the reserved words by their readings, made when the first is asked for: this package is part of programs that ask for none.
var reads = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	for _, word := range reserved {
		for _, reading := range readings(word) {
			out[reading] = word
		}
	}
	return out
})

// readings folds what a reader takes for the same in most typefaces, as the database's registry.slug_reading does between tenants: i as l, and
// besides, where it stands, cl as d.
func readings(s string) []string {
	base := strings.NewReplacer("0", "o", "1", "l", "-", "").Replace(s)
	base = strings.ReplaceAll(strings.ReplaceAll(base, "rn", "m"), "vv", "w")
	return []string{strings.ReplaceAll(base, "i", "l"), strings.ReplaceAll(strings.ReplaceAll(base, "cl", "d"), "i", "l")}
}
