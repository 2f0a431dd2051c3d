package routes

import (
	"fmt"
	"strings"

	"a3os.app/libs/snapshot"
)

// Domain is the name below which tenants have their hosts.
type Domain struct {
	name string
	// apex is the slug that the bare domain leads to; empty for none.
	apex string
}

// NewDomain makes a domain from its name, as `a3os.app`, and the slug that the bare name leads to: one company under its own host
// name. An empty apex means that the bare name leads nowhere.
func NewDomain(name, apex string) (Domain, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	const most = 200 // with a slug and a dot it stays below DNS's 253
	if name == "" || len(name) > most {
		return Domain{}, fmt.Errorf("the domain must have 1 to %d characters", most)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isHostLabel(label) {
			return Domain{}, fmt.Errorf("%q is not a domain name", name)
		}
	}
	if apex != "" && !snapshot.IsLabel(apex) {
		return Domain{}, fmt.Errorf("%q is not a slug", apex)
	}
	return Domain{name: name, apex: apex}, nil
}

// Slug is the slug that a Host header asks for. Case, a port and one trailing dot don't matter; anything else that isn't exactly
// `<slug>.<domain>` does.
func (d Domain) Slug(host string) (string, bool) {
	host, ok := withoutPort(host)
	if !ok {
		return "", false
	}
	host = lower(strings.TrimSuffix(host, "."))
	if host == d.name {
		return d.apex, d.apex != ""
	}
	// <slug>.<domain>: cut from the right, so that acme.a3os.app.evil.example has no slug.
	n := len(host) - len(d.name) - 1
	if n <= 0 || host[n] != '.' || host[n+1:] != d.name || !snapshot.IsLabel(host[:n]) {
		return "", false
	}
	return host[:n], true
}

// withoutPort cuts `:443` off. A port is digits, or nothing (RFC 3986 §3.2.3).
func withoutPort(host string) (string, bool) {
	i := strings.IndexByte(host, ':')
	if i < 0 {
		return host, true
	}
	port := host[i+1:]
	if len(port) > 5 {
		return "", false
	}
	for j := range len(port) {
		if port[j] < '0' || port[j] > '9' {
			return "", false
		}
	}
	return host[:i], true
}

// lower is strings.ToLower for ASCII alone: no letter of another alphabet may turn into one of ours, as K (Kelvin) would.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; c >= 'A' && c <= 'Z' {
					b[i] = c + ('a' - 'A')
				}
			}
			return string(b)
		}
	}
	return s
}

func isHostLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
