package supervise_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	token, err := dir.TokenFor(supervise.Allowance{Group: "acme"}, time.Now().Add(time.Minute))
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
	// Who refuses it counts: a token that may start nothing would be refused all of it by another door.
	for what, do := range map[string]func() error{
		"replaces another's unit":                func() error { _, err := acme.Apply(t.Context(), another); return err },
		"replaces it under its own group's name": func() error { _, err := acme.Apply(t.Context(), disguised); return err },
		"takes a name that begins as its own":    func() error { _, err := acme.Apply(t.Context(), beside); return err },
		"stops another's unit":                   func() error { _, err := acme.Drop(t.Context(), "globex/web"); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "is not of acme") {
			t.Errorf("whoever works on acme %s: %v, want a refusal", what, err)
		}
	}
	if err := acme.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "a tenant's token can't stop the plane") {
		t.Errorf("whoever works on acme stops the plane: %v, want a refusal", err)
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
	good, err := dir.TokenFor(supervise.Allowance{Group: "acme"}, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ended, err := dir.TokenFor(supervise.Allowance{Group: "acme"}, time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"nothing": "", "an invented key": strings.Repeat("A", 26), "a token that ended": ended,
		"a token for one group with another's name": said(t, good, func(a *supervise.Allowance) { a.Group = "globex" }),
		"a token that allows more":                  said(t, good, func(a *supervise.Allowance) { a.ReadsAll = true }),
		"a token with a later end":                  said(t, good, func(a *supervise.Allowance) { a.Until++ }),
		"a token cut short":                         good[:len(good)-1],
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

// said is a token that says something else under the same signature.
func said(t *testing.T, token string, change func(*supervise.Allowance)) string {
	t.Helper()
	text, mac, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var a supervise.Allowance
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	change(&a)
	if raw, err = json.Marshal(a); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw) + "." + mac
}

// Whoever holds a tenant's token starts that tenant's processes and nothing that is more than those: no other user, no program from
// elsewhere, no file of another's opened for it as the log, and none that reads everything.
func TestTokenStartsNothingThatIsMoreThanTheTenants(t *testing.T) {
	dir, c := started(t)
	good := shell(t, dir, "acme/web", "exec sleep 600")
	good.Group = "acme"
	a := supervise.Allowance{Group: "acme", Programs: []string{filepath.Dir(good.Path)}, Dirs: []string{good.Dir}, Logs: filepath.Dir(good.Log)}
	root := os.Geteuid() == 0
	const nobody = 65534
	if root {
		a.Users, good.User = []uint32{nobody}, &supervise.User{UID: nobody, GID: nobody}
	}
	token, err := dir.TokenFor(a, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	acme := supervise.Bound(dir, token)
	bad := map[string]func(*supervise.Unit){
		"has a socket kept open":             func(u *supervise.Unit) { u.Listens = "127.0.0.1:1" },
		"reads every file":                   func(u *supervise.Unit) { u.ReadsAll = true },
		"runs a program from elsewhere":      func(u *supervise.Unit) { u.Path = "/usr/sbin/nologin" },
		"climbs out of the programs":         func(u *supervise.Unit) { u.Path = a.Programs[0] + "/../sbin/nologin" },
		"runs in another directory":          func(u *supervise.Unit) { u.Dir = "/" },
		"has another's file written":         func(u *supervise.Unit) { u.Log = "/etc/cron.d/x" },
		"has a file below its logs written":  func(u *supervise.Unit) { u.Log = a.Logs + "/link/x.log" },
		"has a file beside its logs written": func(u *supervise.Unit) { u.Log = a.Logs + "-two/x.log" },
		"runs as root":                       func(u *supervise.Unit) { u.User = &supervise.User{} },
		"runs as a user that is another's":   func(u *supervise.Unit) { u.User = &supervise.User{UID: 1, GID: nobody} },
		"runs in a group that is another's":  func(u *supervise.Unit) { u.User = &supervise.User{UID: nobody, GID: nobody, Groups: []uint32{4}} },
	}
	if root {
		bad["runs as the supervisor does"] = func(u *supervise.Unit) { u.User = nil }
	}
	for what, change := range bad {
		u := good
		change(&u)
		if _, err := acme.Apply(t.Context(), u); err == nil || !strings.Contains(err.Error(), "may start") {
			t.Errorf("a unit that %s: %v, want a refusal", what, err)
		}
	}
	if changed, err := acme.Apply(t.Context(), good); err != nil || !changed {
		t.Errorf("its own unit: %v, %v", changed, err)
	}
	if status(t, c, "acme/web").Name == "" {
		t.Error("its own unit is not kept")
	}
}
