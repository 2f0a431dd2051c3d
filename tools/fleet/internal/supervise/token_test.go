package supervise_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
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
		"a token that allows more":                  said(t, good, func(a *supervise.Allowance) { a.Users = []uint32{0} }),
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

// Whoever holds a tenant's token starts that tenant's processes and nothing that is more than those: each field of a unit is held, and
// a field that comes to be is to be held before this test lets it.
func TestTokenStartsNothingThatIsMoreThanTheTenants(t *testing.T) {
	dir, c := started(t)
	good := shell(t, dir, "acme/web", "exec sleep 600")
	good.Group, good.Order, good.Release, good.Ready = "acme", 20, "1.0.0", ""
	good.Resources, good.Expendable = supervise.Resources{Memory: 64 << 20, CPU: 1, PIDs: 64}, 500
	said := good
	said.Path, said.Args, said.Env, said.Dir, said.User = "", nil, nil, "", nil
	reader := shell(t, dir, "acme/machine-reader", "exec sleep 600")
	reader.Group, reader.ReadsAll = "acme", true
	a := supervise.Allowance{Group: "acme", Units: []supervise.Unit{said, reader}, Programs: []string{filepath.Dir(good.Path)}, Dirs: []string{good.Dir}}
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
	logs := filepath.Dir(good.Log)
	type unit = supervise.Unit
	held := map[string]struct {
		why string
		bad map[string]func(*unit)
	}{
		"Name": {"it is a path among cgroups, and what runs below it is ended with it", map[string]func(*unit){
			"is called as another's, by a way around": func(u *unit) { u.Name = "acme/../globex/web" },
			"is called as all":                        func(u *unit) { u.Name = "acme/.." },
			"is called as its group":                  func(u *unit) { u.Name = "acme" },
			"has a name that isn't clean":             func(u *unit) { u.Name = "acme/./web" },
			"has a name with nothing in it":           func(u *unit) { u.Name = "acme//web" },
			"is none of its release":                  func(u *unit) { u.Name = "acme/miner" },
		}},
		"Group": {"whoever works on a group sees and stops what is of it", map[string]func(*unit){
			"is of another group": func(u *unit) { u.Group = "globex" },
		}},
		"Order": {"what is of a later one waits for it when the plane comes back, and of an earlier one when it stops", map[string]func(*unit){
			"starts before the databases": func(u *unit) { u.Order = -1 },
			"stops before the front door": func(u *unit) { u.Order = 1000 },
		}},
		"Path": {"a program of elsewhere may be root's, or another's", map[string]func(*unit){
			"runs a program from elsewhere": func(u *unit) { u.Path = "/usr/sbin/nologin" },
			"climbs out of the programs":    func(u *unit) { u.Path = a.Programs[0] + "/../sbin/nologin" },
			"runs no program":               func(u *unit) { u.Path = "" },
		}},
		"Args": {"what the tenant's own program does as the tenant's own user is the tenant's, but of who reads everything", map[string]func(*unit){
			"has who reads everything do something else": func(u *unit) { *u = reader; u.Args = []string{"-c", "cat /etc/shadow"} },
		}},
		"Env": {"as Args: it says what who reads everything passes over, and whom it answers", map[string]func(*unit){
			"tells who reads everything something else": func(u *unit) { *u = reader; u.Env = []string{"A3_CLOSED="} },
		}},
		"Dir": {"a process may find there what it loads", map[string]func(*unit){
			"runs in another directory": func(u *unit) { u.Dir = "/" },
		}},
		"User": {"it is whom the kernel takes the process for", map[string]func(*unit){
			"runs as root":                        func(u *unit) { u.User = &supervise.User{} },
			"runs as a user that is another's":    func(u *unit) { u.User = &supervise.User{UID: 1, GID: nobody} },
			"runs in a group that is another's":   func(u *unit) { u.User = &supervise.User{UID: nobody, GID: nobody, Groups: []uint32{4}} },
			"has who reads everything be another": func(u *unit) { *u = reader; u.User = &supervise.User{UID: nobody, GID: nobody} },
		}},
		"ReadsAll": {"it reads the keys of every set", map[string]func(*unit){
			"reads every file":    func(u *unit) { u.ReadsAll = true },
			"is a second reader":  func(u *unit) { *u = reader; u.Name = "acme/web" },
			"replaces the reader": func(u *unit) { u.Name = reader.Name },
		}},
		"Resources": {"what it takes beyond its bounds it takes from other tenants", map[string]func(*unit){
			"has no bounds":             func(u *unit) { u.Resources = supervise.Resources{} },
			"has no bound of memory":    func(u *unit) { u.Resources.Memory = 0 },
			"has no bound of time":      func(u *unit) { u.Resources.CPU = 0 },
			"has no bound of processes": func(u *unit) { u.Resources.PIDs = 0 },
			"takes more memory":         func(u *unit) { u.Resources.Memory++ },
			"takes more time":           func(u *unit) { u.Resources.CPU = 2 },
			"has more processes":        func(u *unit) { u.Resources.PIDs = -1 },
		}},
		"Expendable": {"where no memory is left, another is ended in its place", map[string]func(*unit){
			"is never ended":         func(u *unit) { u.Expendable = -1000 },
			"is ended after its own": func(u *unit) { u.Expendable = 499 },
			"is beyond all":          func(u *unit) { u.Expendable = 1001 },
		}},
		"Log": {"the supervisor opens it, as root", map[string]func(*unit){
			"has another's file written":         func(u *unit) { u.Log = "/etc/cron.d/x" },
			"has a file below its logs written":  func(u *unit) { u.Log = logs + "/link/x.log" },
			"has a file beside its logs written": func(u *unit) { u.Log = logs + "-two/x.log" },
		}},
		"Release": {"who asks what runs is told it", map[string]func(*unit){
			"says that it is another release": func(u *unit) { u.Release = "2.0.0" },
		}},
		"Ready": {"the supervisor asks there, where the one who says so can't connect", map[string]func(*unit){
			"has another's port asked":   func(u *unit) { u.Ready = "http://127.0.0.1:1/" },
			"has another page asked":     func(u *unit) { u.Ready = "http://169.254.169.254/latest" },
			"has a database asked":       func(u *unit) { u.Ready = "postgres://127.0.0.1:5432" },
			"has another's socket asked": func(u *unit) { u.Ready = "unix:///run/docker.sock" },
		}},
		"Listens": {"the plane alone has sockets kept open", map[string]func(*unit){
			"has a socket kept open": func(u *unit) { u.Listens = "127.0.0.1:1" },
		}},
		"Interrupt": {"it is asked to end as its release is", map[string]func(*unit){
			"is interrupted": func(u *unit) { u.Interrupt = true },
		}},
		"StopWithin": {"the plane's own stop waits that long", map[string]func(*unit){
			"takes an hour to end": func(u *unit) { u.StopWithin = time.Hour },
		}},
	}
	if root {
		held["User"].bad["runs as the supervisor does"] = func(u *unit) { u.User = nil }
	}
	for field := range reflect.TypeFor[supervise.Unit]().Fields() {
		if is := held[field.Name]; is.why == "" || len(is.bad) == 0 {
			t.Errorf("nothing says why %s of a unit is held, and that it is", field.Name)
		}
	}
	for field, is := range held {
		for what, change := range is.bad {
			u := good
			change(&u)
			if _, err := acme.Apply(t.Context(), u); err == nil || !strings.Contains(err.Error(), "may start") && !strings.Contains(err.Error(), "is not of acme") {
				t.Errorf("a unit that %s: %v, want a refusal: %s of a unit is held for that %s", what, err, field, is.why)
			}
		}
	}
	for _, u := range []supervise.Unit{good, reader} {
		if changed, err := acme.Apply(t.Context(), u); err != nil || !changed {
			t.Errorf("its own unit %s: %v, %v", u.Name, changed, err)
		}
		if status(t, c, u.Name).Name == "" {
			t.Errorf("its own unit %s is not kept", u.Name)
		}
	}
}
