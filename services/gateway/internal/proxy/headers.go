package proxy

import (
	"net"
	"net/http"
	"strings"

	"a3os.app/libs/rpc"
)

// Headers by which something between client and service says who or where the client is, or what it really asks for. Services
// believe the gateway, so nobody outside may speak in its name. Names are in lower case, hyphens for underscores: a service that
// maps both to one name must not be tricked either.
var (
	identityPrefixes = []string{"x-forwarded", "x-tenant", "x-workspace", "x-a3-", "a3-", "x-original-", "x-rewrite-", "x-auth-", "x-authenticated-",
		"x-ssl-", "ssl-client", "x-client-", "x-amzn-oidc", "cf-", "x-envoy-", "x-host", "x-http-"}
	identityNames = map[string]bool{"forwarded": true, "x-real-ip": true, "x-real-host": true, "true-client-ip": true, "x-cluster-client-ip": true,
		"x-remote-user": true, "remote-user": true, "x-user": true, "x-user-id": true, "x-proxyuser-ip": true, "x-tid": true, "x-wid": true, "x-scope": true,
		"x-method-override": true, "proxy": true, "baggage": true, "client-cert": true, "client-cert-chain": true}
)

// isIdentity says whether a request header, in canonical form, speaks of identity.
func isIdentity(name string) bool {
	// Most headers begin with none of these letters and are let through at the first one.
	switch name[0] {
	case 'X', 'x', 'A', 'a', 'F', 'f', 'P', 'p', 'T', 't', 'R', 'r', 'S', 's', 'C', 'c', 'B', 'b':
	default:
		return false
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if identityNames[name] {
		return true
	}
	for _, p := range identityPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// clean removes what a client may not say, and adds what the gateway says.
func clean(h http.Header, remoteAddr string) {
	for name := range h {
		if name == "" || isIdentity(name) {
			delete(h, name)
		}
	}
	// HTTP/2 lets a Host header stand beside :authority; the request has one host, and it isn't this.
	delete(h, "Host")
	if host, _, err := net.SplitHostPort(remoteAddr); err == nil {
		h[rpc.SourceHeader] = []string{host}
	}
}

// ambiguousPath says whether a path could lead to another component at a server that cleans or decodes it once more.
func ambiguousPath(path, raw string) bool {
	if path == "" || path[0] != '/' || strings.Contains(path, "//") || strings.IndexByte(path, '\\') >= 0 || strings.IndexByte(path, 0) >= 0 {
		return true
	}
	for rest := path; ; {
		i := strings.Index(rest, "/.")
		if i < 0 {
			break
		}
		rest = rest[i+2:]
		rest = strings.TrimPrefix(rest, ".")
		if rest == "" || rest[0] == '/' || rest[0] == ';' {
			return true
		}
	}
	if raw == "" {
		return false
	}
	raw = strings.ToLower(raw)
	return strings.Contains(raw, "%2f") || strings.Contains(raw, "%2e") || strings.Contains(raw, "%5c") || strings.Contains(raw, "%25")
}
