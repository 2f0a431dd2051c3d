package proxy

import (
	"fmt"
	"net/http"
	"testing"
)

// Attack row H14, name by name.
func TestHeadersThatSpeakOfIdentityAreRemoved(t *testing.T) {
	names := []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Client-Cert", "X-Forwarded", "X-Real-Ip", "X-Tenant-Id",
		"X-Tenant", "X-Workspace-Id", "A3-Envelope", "A3-Source-Address", "A3-Request-Id", "A3-Anything", "X-A3-Tenant", "X_forwarded_for", "X_tenant_id",
		"A3_envelope", "True-Client-Ip", "Cf-Connecting-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Original-Host", "X-Host", "X-Http-Method-Override", "Proxy",
		"X-Ssl-Client-Cert", "Baggage", "Host", "X-Remote-User",
	}
	for _, name := range names {
		h := http.Header{name: {"b"}, "Authorization": {"Bearer x"}}
		clean(h, "192.0.2.7:1234")
		if got := h[name]; len(got) != 0 && (name != "A3-Source-Address" || got[0] != "192.0.2.7") {
			t.Errorf("%s came through as %q", name, got)
		}
		if h.Get("A3-Source-Address") != "192.0.2.7" || h.Get("Authorization") == "" {
			t.Errorf("with %s the rest is %v", name, h)
		}
	}
	t.Attr("row", fmt.Sprintf("H14 %d", len(names)))
}

func TestHeadersThatClientsNeedStay(t *testing.T) {
	for _, name := range []string{
		"Authorization", "Content-Type", "Accept", "Accept-Encoding", "Idempotency-Key", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout",
		"Grpc-Encoding", "X-Grpc-Web", "X-User-Agent", "User-Agent", "Te", "Traceparent", "Tracestate", "Origin", "Cookie", "Range", "If-None-Match",
		"Access-Control-Request-Method", "Referer", "Sec-Fetch-Site", "X-Requested-With", "Content-Length", "Content-Encoding", "Accept-Post",
	} {
		h := http.Header{name: {"v"}}
		clean(h, "[2001:db8::1]:1")
		if h.Get(name) != "v" {
			t.Errorf("%s was removed", name)
		}
		if got := h.Get("A3-Source-Address"); got != "2001:db8::1" {
			t.Errorf("the source address is %q", got)
		}
	}
}

func TestPathThatCouldBeReadInTwoWaysLeadsNowhere(t *testing.T) {
	for _, p := range [][2]string{
		{"", ""}, {"*", ""}, {"x", ""}, {"//", ""}, {"/a//b", ""}, {"/a/../b", ""}, {"/a/..", ""}, {"/.", ""}, {"/a/./b", ""}, {"/..;/b", ""},
		{"/a\\b", ""}, {"/a\x00", ""}, {"/a/b", "/a%2fb"}, {"/a/b", "/a%2Fb"}, {"/a.b", "/a%2eb"}, {"/a%2fb", "/a%252fb"},
	} {
		if !ambiguousPath(p[0], p[1]) {
			t.Errorf("%q (%q) leads somewhere", p[0], p[1])
		}
	}
	for _, p := range [][2]string{
		{"/", ""}, {"/a3os.iam.v1.UserService/GetUser", ""}, {"/.well-known/openid-configuration", ""}, {"/a/b/", ""}, {"/a/.b/..c/d.e", ""}, {"/a b~", "/a%20b%7E"},
	} {
		if ambiguousPath(p[0], p[1]) {
			t.Errorf("%q (%q) leads nowhere", p[0], p[1])
		}
	}
}
