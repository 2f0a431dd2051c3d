package unix

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/connectortest"
)

// Public halves of keys made for these tests; nobody keeps the private ones.
const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJRW3PTN/jERfS1fVXEzMsoOYlNXFX1FPkXxJQiJnXrC"
	keyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFRh7EiFuHC14tLk3kbKS0L1sFsRnXEQ3j6Zl+rwFmNq"
)

func source() connector.Source {
	return connector.Source{Name: "machine", Settings: &integrationsv1.Settings{
		Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{HostName: "box"}},
	}}
}

// company is a machine with a bit of everything.
func company() map[string]string {
	return map[string]string{
		"/etc/hostname": "box\n",
		"/etc/shells":   "# shells\n/bin/sh\n/bin/bash\n",
		"/bin/sh":       "", "/bin/bash": "", "/bin/su": "", "/usr/bin/id": "",
		"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n" +
			"toor:x:0:0::/root:/bin/sh\n" +
			"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
			"ann:x:1000:1000:Ann Doe,room 1:/home/ann:/bin/bash\n" +
			"bob:x:1001:1000::/home/bob:/bin/bash\n" +
			"cy:x:1002:1000::/home/cy:\n" +
			"twin:x:1002:1000::/home/twin:/bin/sh\n" +
			"old:x:1003:1000::/home/old:/bin/bash\n" +
			"stale:x:1004:1000::/home/stale:/bin/bash\n" +
			"open:x:1005:1000::/home/open:/bin/bash\n" +
			"robot:x:1006:1000::/srv/robot:/bin/sh\n" +
			"db:x:1007:1000::/home/db:/bin/bash\n",
		"/etc/group": "root:x:0:\nusers:x:1000:\nops:x:2000:ann,bob,ghost\nsame:x:2000:\n",
		"/etc/shadow": "root:*:19000:0:99999:7:::\ntoor:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n" +
			"ann:$6$s$h:19000:0:99999:7:::\nbob:!$6$s$h:19000:0:99999:7:::\ncy:$6$s$h:19000:0:99999:7:::\ntwin:*:19000:0:99999:7:::\n" +
			"old:$6$s$h:19000:0:99999:7::100:\nstale:$6$s$h:100:0:90:7:30::\nopen::19000:0:99999:7:::\nrobot:!:19000:0:99999:7:::\ndb:$6$s$h:19000:0:99999:7:::\n",
		"/etc/sudoers": "Defaults env_reset\nCmnd_Alias SHELLS = /bin/sh, \\\n  /bin/bash\n" +
			"%ops ALL = (ALL) ALL, !SHELLS\n@includedir /etc/sudoers.d\n",
		"/etc/sudoers.d/10-cy":    "# cy\ncy box = (db) NOPASSWD: \\\n  /usr/bin/id -u, /usr/bin/id -g\nold ALL = /bin/su - db\nstale elsewhere = ALL\n",
		"/etc/sudoers.d/20-robot": "robot ALL = (root) CHROOT=/x /bin/ls\nrobot ALL = /bin/su\n",
		"/etc/sudoers.d/x.bak":    "db ALL = ALL\n",
		"/home/ann/.ssh/authorized_keys": "# mine\n" + keyA + " ann@laptop\n\nfrom=\"192.0.2.0/24\" " + keyB + " shared\n" +
			"expiry-time=\"20200101\" " + keyB + "\nnonsense\n",
		"/home/bob/.ssh/authorized_keys2":    keyB + " shared\n",
		"/srv/robot/.ssh/authorized_keys":    "command=\"/usr/bin/backup \\\"all\\\"\",no-pty " + keyA + " ann@laptop\n",
		"/home/db/.ssh/id_ed25519":           "not read\n",
		"/home/db/.ssh/id_ed25519.pub":       keyB + " db@box\n",
		"/etc/ssh/sshd_config":               "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile none\nMatch User x\n  AuthorizedKeysFile /x\n",
		"/etc/ssh/sshd_config.d/10-own.conf": "AuthorizedKeysFile %h/.ssh/authorized_keys .ssh/authorized_keys2\n",
	}
}

// lay writes a machine's files under a new root.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("cvtsudoers"); err != nil {
		t.Skip("cvtsudoers is not installed: sudo rules can't be read")
	}
	root := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// reasons are the grants in words, with why.
func reasons(records []*discoveryv1.Record) map[string]string {
	out := map[string]string{}
	for _, r := range records {
		if g := r.GetGrant(); g != nil {
			on := g.GetEntitlement().GetResource()
			out[g.GetPrincipal().GetType()+" "+g.GetPrincipal().GetExternalId()+" holds "+g.GetEntitlement().GetName()+" of "+on.GetType()+" "+on.GetExternalId()] = g.GetReason()
		}
	}
	return out
}

func TestMachinesAreReadLikeEveryConnectorReads(t *testing.T) {
	t.Run("this one", func(t *testing.T) { connectortest.Test(t, New("/", nil), source()) })
	t.Run("the company's", func(t *testing.T) {
		files := company()
		var b strings.Builder
		for _, one := range strings.SplitAfter(strings.Repeat("x", 300), "x")[:300] {
			b.WriteString("u" + strings.Repeat(one, b.Len()%7+1) + strings.ReplaceAll(strings.TrimSpace(strings.Repeat("i ", b.Len()%11)), " ", "") + ":*:3000:3000::/:/bin/sh\n")
		}
		files["/etc/passwd"] += b.String()
		connectortest.Test(t, New(lay(t, files), nil), source())
	})
}

func TestGrantsSayWhere(t *testing.T) {
	got := reasons(connectortest.ReadAll(t, New(lay(t, company()), nil), source(), nil).Records)
	a, b := "SHA256:", "SHA256:"
	for k := range got {
		if who, ok := strings.CutPrefix(k, "ssh_key "); ok {
			who, rest, _ := strings.Cut(who, " holds ")
			switch {
			case strings.HasPrefix(rest, "forced command"):
				a = who
			case strings.HasSuffix(rest, "user bob"):
				b = who
			}
		}
	}
	except := "ALL, !/bin/sh, !/bin/bash"
	for want, reason := range map[string]string{
		"user root holds root of host box":                     "uid 0",
		"user toor holds root of host box":                     "uid 0",
		"user toor holds become of user root":                  "uid 0 may become any account",
		"user cy holds become of user twin":                    "both have uid 1002",
		"user ann holds member of group ops":                   "/etc/group: listed in ops",
		"user ann holds member of group same":                  "/etc/group: listed in another group of gid 2000",
		"user ann holds member of group users":                 "/etc/passwd: primary group 1000",
		"user ann holds login of host box":                     "has a password and the shell /bin/bash; authorized key /home/ann/.ssh/authorized_keys:2",
		"user bob holds login of host box":                     "authorized key /home/bob/.ssh/authorized_keys2:1",
		"user cy holds login of host box":                      "has a password and the shell /bin/sh",
		"user open holds login of host box":                    "needs no password and has the shell /bin/bash",
		"group ops holds sudo as ALL of command " + except:     "/etc/sudoers:4: %ops ALL = (ALL) ALL, !SHELLS",
		"user cy holds sudo as db of command /usr/bin/id -u":   `/etc/sudoers.d/10-cy:2: cy box = (db) NOPASSWD: /usr/bin/id -u, /usr/bin/id -g (no password is asked for)`,
		"user old holds sudo as root of command /bin/su - db":  "/etc/sudoers.d/10-cy:4: old ALL = /bin/su - db",
		"ssh_key " + a + " holds become of user ann":           "/home/ann/.ssh/authorized_keys:2",
		"ssh_key " + b + " holds become of user ann":           "/home/ann/.ssh/authorized_keys:4, from 192.0.2.0/24",
		"ssh_key " + b + " holds become of user bob":           "/home/bob/.ssh/authorized_keys2:1",
		"ssh_key " + a + " holds forced command of user robot": `/srv/robot/.ssh/authorized_keys:1: /usr/bin/backup "all"`,
		"user db holds use of ssh_key " + b:                    "/home/db/.ssh/id_ed25519",
	} {
		if got[want] != reason {
			t.Errorf("%s: because %q, want %q", want, got[want], reason)
		}
	}
	for _, no := range []string{
		"user old holds login of host box", "user stale holds login of host box", "user robot holds login of host box",
		"user daemon holds login of host box", "user db holds sudo as root of command ALL", "user stale holds sudo as root of command ALL",
		"user ann holds sudo as ALL of command " + except, "ssh_key " + a + " holds become of user robot",
	} {
		if reason, ok := got[no]; ok {
			t.Errorf("%s, because %q: it must not", no, reason)
		}
	}
}

func TestStatesOfAccountsAreTold(t *testing.T) {
	found := connectortest.ReadAll(t, New(lay(t, company()), nil), source(), nil)
	got := map[string]string{}
	for _, r := range found.Records {
		if a := r.GetResource(); a.GetType() == typeUser {
			got[a.GetExternalId()] = a.GetAttributes()["status"] + " " + a.GetAttributes()["password"]
		}
	}
	for name, want := range map[string]string{
		"root": "locked locked", "daemon": "locked locked", "ann": "active set", "bob": "locked locked",
		"old": "expired set", "stale": "expired set", "open": "active empty",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestPowerLeadsOnToOtherAccounts(t *testing.T) {
	v := newView(t, connectortest.ReadAll(t, New(lay(t, company()), nil), source(), nil).Records)
	for _, who := range []string{"ann", "bob", "toor", "robot", "db"} {
		if !holds(v.acting[who], typeHost, "box", entRoot) {
			t.Errorf("%s can come by root and the graph doesn't say so", who)
		}
	}
	for _, who := range []string{"cy", "old", "open", "daemon"} {
		// old may su to db alone; db keeps the key that opens ann and bob, who are in ops.
		if got, want := holds(v.acting[who], typeHost, "box", entRoot), who == "old"; got != want {
			t.Errorf("%s can come by root: the graph says %t, want %t", who, got, want)
		}
	}
	if !v.becomes("old", "db") || v.becomes("cy", "db") {
		t.Errorf("old becomes db: %t, want true; cy becomes db: %t, want false", v.becomes("old", "db"), v.becomes("cy", "db"))
	}
}

func TestWhatCannotBeReadIsAGapOfItsScopeAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(files map[string]string)
		scope  string
		want   string
	}{
		"no shadow":        {func(f map[string]string) { delete(f, "/etc/shadow") }, ScopeLogins, "/etc/shadow: no such file or directory"},
		"shadow line":      {func(f map[string]string) { f["/etc/shadow"] += "x:y\n" }, ScopeLogins, "/etc/shadow:13: is not a line of nine fields"},
		"passwd line":      {func(f map[string]string) { f["/etc/passwd"] += "+::::::\n" }, ScopeAccounts, "/etc/passwd:13: NIS compat entries are not followed"},
		"group line":       {func(f map[string]string) { f["/etc/group"] += "x\n" }, ScopeGroups, "/etc/group:5: is not a line of four fields"},
		"sudo syntax":      {func(f map[string]string) { f["/etc/sudoers.d/30"] = "ok ALL=ALL\nbad rule\n" }, ScopeSudoers, "/etc/sudoers.d/30:2: syntax error"},
		"sudo chroot":      {func(map[string]string) {}, ScopeSudoers, "/etc/sudoers.d/20-robot:1: CHROOT= is not followed"},
		"sudo plugin":      {func(f map[string]string) { f["/etc/sudoers.d/30"] = "%:wheel ALL=ALL\n" }, ScopeSudoers, "/etc/sudoers.d/30:1: groups of a plugin (%:) are not known"},
		"sudo netgroup":    {func(f map[string]string) { f["/etc/sudoers.d/30"] = "+ng ALL=ALL\n" }, ScopeSudoers, "netgroup +ng is not known away from its machine"},
		"sudo expression":  {func(f map[string]string) { f["/etc/sudoers.d/30"] = "ann ALL=^/bin/(a$\n" }, ScopeSudoers, "/etc/sudoers.d/30:1: "},
		"sudo by LDAP":     {func(f map[string]string) { f["/etc/nsswitch.conf"] = "sudoers: files ldap\n" }, ScopeSudoers, "other sources than files are not known: files ldap"},
		"sudo space":       {func(f map[string]string) { f["/etc/sudoers.d/30"] = "ann ALL=/bin/a\\ b\n" }, ScopeSudoers, "whose path holds a space"},
		"key line":         {func(map[string]string) {}, ScopeKeys, "/home/ann/.ssh/authorized_keys:6: is no key that can be read"},
		"keys in a Match":  {func(map[string]string) {}, ScopeKeys, "/etc/ssh/sshd_config:4: AuthorizedKeysFile inside Match is not followed"},
		"keys by command":  {func(f map[string]string) { f["/etc/ssh/sshd_config.d/1.conf"] = "AuthorizedKeysCommand /x\n" }, ScopeKeys, "keys that AuthorizedKeysCommand answers are not known"},
		"keys that aren't": {func(f map[string]string) { f["/home/cy/.ssh/authorized_keys/x"] = "" }, ScopeKeys, "/home/cy/.ssh/authorized_keys: not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			files := company()
			tc.change(files)
			found := connectortest.ReadAll(t, New(lay(t, files), nil), source(), nil)
			if !strings.Contains(strings.Join(found.Gaps[tc.scope], "\n"), tc.want) {
				t.Errorf("gaps of %s are %q, want %q among them", tc.scope, found.Gaps[tc.scope], tc.want)
			}
			if found.Completed[tc.scope] {
				t.Errorf("%s has a gap and is said to be complete", tc.scope)
			}
			for _, scope := range []string{ScopeAccounts, ScopeGroups, ScopeLogins} {
				if scope != tc.scope && !found.Completed[scope] {
					t.Errorf("%s is not complete for a gap of %s: %q", scope, tc.scope, found.Gaps[scope])
				}
			}
		})
	}
}

func TestABadSudoLineDoesNotHideTheOthers(t *testing.T) {
	files := company()
	files["/etc/sudoers"] = "bad rule\n" + files["/etc/sudoers"]
	got := reasons(connectortest.ReadAll(t, New(lay(t, files), nil), source(), nil).Records)
	if got["group ops holds sudo as ALL of command ALL, !/bin/sh, !/bin/bash"] == "" {
		t.Errorf("the rule after a bad line is missing: %v", got)
	}
}

func TestAMachineThatChangesBetweenSlicesIsReadAnew(t *testing.T) {
	files := company()
	for i := range 300 {
		files["/etc/passwd"] += "u" + strings.Repeat("a", i%20+1) + strings.Repeat("b", i/20+1) + ":*:3000:3000::/:/bin/false\n"
	}
	root := lay(t, files)
	first := connectortest.NewRecorder()
	first.AlwaysDue = true
	next, err := New(root, nil).Read(t.Context(), source(), nil, first)
	if err != nil || next == nil {
		t.Fatalf("the first slice answered %q, %v", next, err)
	}
	if err := os.WriteFile(filepath.Join(root, "/etc/sudoers.d/40"), []byte("late ALL=ALL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	added := files["/etc/passwd"] + "late:*:4000:1000::/:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(root, "/etc/passwd"), []byte(added), 0o600); err != nil {
		t.Fatal(err)
	}
	rest := connectortest.ReadAll(t, New(root, nil), source(), next)
	if v := newView(t, rest.Records); v.accounts["late"] == nil || !v.becomes("late", "root") {
		t.Error("an account that came between two slices was left out, or its grants were")
	}
}

func TestTestNamesWhatIsMissing(t *testing.T) {
	files := company()
	delete(files, "/etc/shadow")
	result, err := New(lay(t, files), nil).Test(t.Context(), source())
	if err != nil || !result.OK || !strings.Contains(strings.Join(result.Missing, "\n"), "/etc/shadow") {
		t.Errorf("Test answered %+v, %v", result, err)
	}
}
