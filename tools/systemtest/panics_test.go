package systemtest

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/dynamicpb"

	"a3os.app/libs/redact"
)

// Row S43 where handlers panic with what they were sent: every method that takes a secret, by everyone who may call it, and the issuer's
// endpoints. Nobody is told it, and no log holds it.
func panics(t *testing.T, x *tenant, owner *person) {
	c := newCanaries()
	tokens := []string{owner.token(t, ""), owner.token(t, x.workspace(t, owner).GetId())}
	for component := range x.addresses {
		x.arm(t, component, "rpc.received panic", "iam.issuer.form panic")
		defer x.arm(t, component)
	}
	panicked := map[string]int{}
	sent := func(what string, a answer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c.look("the answer of "+what, []byte(fmt.Sprint(a.header)+a.message+a.body))
		if a.status == http.StatusInternalServerError || a.code == "internal" {
			panicked[what]++
		}
	}
	marked := 0
	for _, m := range methods(t) {
		if !redact.Has(m.Input()) || m.IsStreamingClient() {
			continue
		}
		marked++
		msg := dynamicpb.NewMessage(m.Input())
		c.fill(msg, 1)
		raw, err := protojson.Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		var callers []caller
		for _, token := range tokens {
			callers = append(callers, past(t, x, m.component).bearer(token))
			for _, certificate := range x.certificates(t) {
				callers = append(callers, past(t, x, m.component, certificate), past(t, x, m.component, certificate).bearer(token))
			}
		}
		for _, by := range callers {
			a, err := by.try(t, m.path(), contentType(m, "json"), frame(m, raw))
			sent(m.path(), a, err)
		}
		if panicked[m.path()] == 0 {
			t.Errorf("%s did not panic for anybody: this test proves less than it says", m.path())
		}
	}
	const atLeast = 3
	if marked < atLeast {
		t.Errorf("only %d methods take a secret", marked)
	}
	for _, path := range []string{"/oauth2/token", "/oauth2/revoke"} {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {c.another()}, "token": {c.another()}, "assertion": {c.another()}}
		a, err := through(t, x).try(t, path, "application/x-www-form-urlencoded", []byte(form.Encode()))
		sent(path, a, err)
		if panicked[path] == 0 {
			t.Errorf("%s did not panic: this test proves less than it says", path)
		}
	}
	said := 0
	for component := range x.addresses {
		raw := read(t, filepath.Join(x.plane.home, "log", x.id, component+".log"))
		c.look(component+"'s log", []byte(raw))
		said += strings.Count(raw, "panicked") + strings.Count(raw, "panic in a handler")
	}
	if said < len(panicked) {
		t.Errorf("%d panics of %d are in the logs", said, len(panicked))
	}
	for _, hit := range c.hits {
		t.Error(hit)
	}
	t.Attr("row", fmt.Sprint("S43 ", c.tried))
}
