package supervise_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/supervise"
)

// Whoever works on one tenant reaches no other, also where the same user runs both and the control socket is open to them.
func TestTokenOfOneGroupReachesNoOther(t *testing.T) {
	dir, c := started(t)
	for _, group := range []string{"acme", "globex"} {
		u := shell(t, dir, group+"/web", "exec sleep 600")
		u.Group, u.Log = group, u.Dir+"/log/"+group+".log"
		kept(t, c, u)
	}
	token, err := dir.TokenFor("acme", time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	acme := supervise.Bound(dir, token)
	seen, err := acme.Status(t.Context())
	if err != nil || len(seen) != 1 || seen[0].Name != "acme/web" {
		t.Fatalf("it sees %v (%v), want its own unit alone", seen, err)
	}
	another := shell(t, dir, "globex/web", "exec sleep 1")
	another.Group, another.Log = "globex", another.Dir+"/log/x.log"
	disguised := another
	disguised.Group = "acme"
	beside := disguised
	beside.Name = "acme-two/web"
	for what, do := range map[string]func() error{
		"replaces another's unit":                func() error { _, err := acme.Apply(t.Context(), another); return err },
		"replaces it under its own group's name": func() error { _, err := acme.Apply(t.Context(), disguised); return err },
		"takes a name that begins as its own":    func() error { _, err := acme.Apply(t.Context(), beside); return err },
		"stops another's unit":                   func() error { _, err := acme.Drop(t.Context(), "globex/web"); return err },
		"stops the plane":                        func() error { return acme.Stop(t.Context()) },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "tenant") {
			t.Errorf("whoever works on acme %s: %v, want a refusal", what, err)
		}
	}
	if status(t, c, "globex/web").PID == 0 {
		t.Error("globex does not run any more")
	}
	if changed, err := acme.Drop(t.Context(), "acme/web"); err != nil || !changed {
		t.Errorf("it can't stop its own unit: %v, %v", changed, err)
	}
}

func TestControlSocketAnswersNobodyWithoutKeyOrToken(t *testing.T) {
	dir, _ := started(t)
	good, err := dir.TokenFor("acme", time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ended, err := dir.TokenFor("acme", time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"nothing": "", "an invented key": strings.Repeat("A", 26), "a token that ended": ended,
		"a token for one group with another's name": strings.Replace(good, "acme", "globex", 1),
		"a token cut short":                         good[:len(good)-1], "a token with a later end": strings.Replace(good, ".1", ".9", 1),
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://supervisor/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", dir.Socket())
		}}}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("with %s it answers %s (%v)", what, res.Status, err)
		}
		client.CloseIdleConnections()
	}
}
