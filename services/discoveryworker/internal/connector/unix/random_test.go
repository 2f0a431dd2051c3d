package unix

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// madeMachine is a random machine: its accounts and groups, its rules, and what sudo is asked about it.
type madeMachine struct {
	random  *rand.Rand
	users   []madeUser
	groups  []madeGroup
	sudoers map[string]string
	aliases map[string][]string
	asked   [][]string
	// loose are files that others than root may write, which sudo then doesn't read.
	loose map[string]os.FileMode
}

type madeUser struct {
	name, password string
	uid, gid       int
	expiry         string
}

type madeGroup struct {
	name    string
	gid     int
	members []string
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomMachine(r *rand.Rand) *madeMachine {
	m := &madeMachine{random: r, sudoers: map[string]string{}, aliases: map[string][]string{}, loose: map[string]os.FileMode{}}
	m.users = []madeUser{{name: "root", password: "*"}}
	for i := range 3 + r.IntN(2) {
		u := madeUser{name: fmt.Sprintf("u%d", i), uid: 5001 + i, gid: 6000 + r.IntN(5), password: pick(r, "!", "*", "", "$6$salt$hash", "!$6$salt$hash")}
		switch r.IntN(8) {
		case 0:
			u.uid = 0
		case 1:
			u.uid = 5001
		}
		u.expiry = pick(r, "", "", "1", "99999")
		m.users = append(m.users, u)
	}
	for i := range 2 + r.IntN(3) {
		g := madeGroup{name: fmt.Sprintf("g%d", i), gid: 6000 + i}
		if r.IntN(6) == 0 {
			g.gid = 6000
		}
		for _, u := range m.users {
			if r.IntN(3) == 0 {
				g.members = append(g.members, u.name)
			}
		}
		m.groups = append(m.groups, g)
	}
	m.rules()
	for _, name := range []string{"/etc/sudoers.d/10-a", "/etc/sudoers.d/20-b", "/etc/sudoers.extra"} {
		if r.IntN(8) == 0 {
			m.loose[name] = pick(r, os.FileMode(0o666), os.FileMode(0o460))
		}
	}
	for range 5 {
		m.asked = append(m.asked, pick(r, []string{"/bin/ls"}, []string{"/usr/bin/ls"}, []string{"/bin/ls", "-l"}, []string{"/bin/ls", "-l", "/tmp"},
			[]string{"/bin/cat"}, []string{"/bin/cat", "x,y"}, []string{"/usr/bin/id"}, []string{"/bin/sh"}, []string{"/usr/bin/true"},
			[]string{"/usr/sbin/visudo", "-c"}, []string{"/usr/bin/id", "-u"}))
	}
	return m
}

// rules writes /etc/sudoers and files that it includes.
func (m *madeMachine) rules() {
	r := m.random
	aliases := m.aliasLines()
	files := []string{"/etc/sudoers", "/etc/sudoers.d/10-a", "/etc/sudoers.d/20-b", "/etc/sudoers.d/ignored.bak", "/etc/sudoers.extra"}
	for _, file := range files {
		var b strings.Builder
		if file == "/etc/sudoers" {
			// So that an account may ask about itself without its password. Neither changes what is allowed.
			b.WriteString("Defaults listpw=never, !pam_acct_mgmt\n" + aliases)
			if r.IntN(6) == 0 {
				fmt.Fprintf(&b, "Defaults runas_default=%s\n", pick(r, m.users...).name)
			}
			if r.IntN(4) == 0 {
				fmt.Fprintf(&b, "Defaults %s\n", pick(r, "match_group_by_gid", "!case_insensitive_user", "!case_insensitive_group", "!authenticate"))
			}
		}
		for range r.IntN(4) {
			b.WriteString(m.rule())
		}
		if file == "/etc/sudoers" {
			b.WriteString(pick(r, "@includedir /etc/sudoers.d\n@include sudoers.extra\n", "#includedir /etc/sudoers.d\n", "@include /etc/sudoers.extra\n@includedir /etc/sudoers.d\n"))
			for range r.IntN(3) {
				b.WriteString(m.rule())
			}
		}
		m.sudoers[file] = b.String()
	}
}

func (m *madeMachine) rule() string {
	r := m.random
	line := m.list("USERS", m.userItem, 2)
	for i := range 1 + r.IntN(5)/4 {
		if i > 0 {
			line += " :\\\n "
		}
		line += " " + m.list("HOSTS", m.hostItem, 2) + " = "
		for j := range 1 + r.IntN(3) {
			if j > 0 {
				line += ", "
			}
			line += m.runas() + pick(r, "", "", "NOPASSWD: ", "PASSWD: ", "NOEXEC: ", "SETENV: ", "CWD=/tmp ", "TIMEOUT=60 ", "NOPASSWD:NOEXEC: ") + m.list("COMMANDS", m.commandItem, 1)
		}
	}
	if r.IntN(8) == 0 {
		line += " # said so"
	}
	return line + "\n"
}

func (m *madeMachine) runas() string {
	r := m.random
	switch r.IntN(8) {
	case 0:
		return ""
	case 1:
		return "(ALL) "
	case 2:
		return "(ALL:ALL) "
	case 3:
		return "(" + m.list("RUNAS", m.userItem, 2) + ":" + m.list("", m.groupItem, 2) + ") "
	case 4:
		return "(:" + m.list("", m.groupItem, 2) + ") "
	case 5:
		return pick(r, "() ", "(:) ", "(ALL, !root) ", "(ALL, !#0) ", "(root) ")
	}
	return "(" + m.list("RUNAS", m.userItem, 3) + ") "
}

// list is up to some items, some of them turned round, some of them aliases.
func (m *madeMachine) list(aliases string, item func() string, most int) string {
	var items []string
	for range 1 + m.random.IntN(most) {
		one := item()
		if names := m.aliases[aliases]; len(names) > 0 && m.random.IntN(4) == 0 {
			one = pick(m.random, names...)
		}
		if m.random.IntN(5) == 0 {
			if digest, command, ok := strings.Cut(one, " "); ok && strings.HasPrefix(one, "sha") {
				one = digest + " !" + command
			} else {
				one = "!" + one
			}
		}
		items = append(items, one)
	}
	return strings.Join(items, ", ")
}

func (m *madeMachine) userItem() string {
	r := m.random
	u, g := pick(r, m.users...), pick(r, m.groups...)
	switch r.IntN(10) {
	case 0:
		return "ALL"
	case 1:
		return fmt.Sprintf("#%d", u.uid)
	case 2, 3:
		return "%" + g.name
	case 4:
		return fmt.Sprintf("%%#%d", g.gid)
	case 5:
		return pick(r, "+staff", "+nobody-has-it", strings.ToUpper(u.name)+"x", strings.Replace(u.name, "u", "U", 1), "%nogroup-here")
	}
	return u.name
}

func (m *madeMachine) groupItem() string {
	g := pick(m.random, m.groups...)
	return pick(m.random, "ALL", g.name, g.name, fmt.Sprintf("#%d", g.gid))
}

func (m *madeMachine) hostItem() string {
	return pick(m.random, "ALL", "ALL", "ALL", "box", "b?x", "box.example.test", "*.example.test", "other", "192.0.2.0/24", "+hosts")
}

func (m *madeMachine) commandItem() string {
	return pick(m.random, "ALL", "ALL", "/bin/ls", "/usr/bin/ls", "/bin/ls -l", "/bin/ls -l *", `/bin/ls ""`, "/bin/ls -?", "/bin/cat", `/bin/cat x\,y`,
		"/usr/bin/", "/bin/", "/usr/sbin/", "/bin/l*", "/usr/bin/[a-i]*", "/bin/[!a-c]?", `/bin/[[\:alpha\:]]s`, "/*/id", "^/usr/bin/(id|ls)$",
		"/bin/ls ^-[al]+$", "/usr/bin/id", "/bin/id -u", "/bin/sh", "/nowhere/ls", "sudoedit /etc/motd", "sudoedit",
		"sha224:"+strings.Repeat("ab", 28)+" /bin/ls", "sha256:"+digestOf("/bin/ls")+" /bin/ls", "sha256:"+digestOf("/bin/cat")+" ALL")
}

func digestOf(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return strings.Repeat("00", 32)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// aliasLines declares aliases, some made of others.
func (m *madeMachine) aliasLines() string {
	var b strings.Builder
	for _, kind := range []struct {
		word, name string
		item       func() string
	}{{"User_Alias", "USERS", m.userItem}, {"Runas_Alias", "RUNAS", m.userItem}, {"Host_Alias", "HOSTS", m.hostItem}, {"Cmnd_Alias", "COMMANDS", m.commandItem}} {
		for i := range m.random.IntN(3) {
			name := fmt.Sprintf("%s%d", kind.name, i)
			fmt.Fprintf(&b, "%s %s = %s\n", kind.word, name, m.list(kind.name, kind.item, 3))
			m.aliases[kind.name] = append(m.aliases[kind.name], name)
		}
	}
	if m.random.IntN(8) == 0 {
		m.aliases["USERS"] = append(m.aliases["USERS"], "UNDEFINED")
	}
	return b.String()
}

// write puts the machine into /etc, which is a throwaway copy.
func (m *madeMachine) write(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/etc/a3-throwaway"); err != nil {
		t.Fatalf("refused to write: %v", err)
	}
	files := map[string]string{
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nnetgroup: files\n",
		"/etc/netgroup":      "staff (-,u0,) (,u1,)\nhosts (box,-,)\n",
		"/etc/hosts":         "127.0.0.1 localhost\n127.0.1.1 box.example.test box\n",
	}
	for name, text := range m.sudoers {
		files[name] = text
	}
	for _, u := range m.users {
		files["/etc/passwd"] += fmt.Sprintf("%s:x:%d:%d:%s,,:/home/%s:/bin/bash\n", u.name, u.uid, u.gid, strings.ToUpper(u.name), u.name)
		files["/etc/shadow"] += fmt.Sprintf("%s:%s:19000:0:99999:7::%s:\n", u.name, u.password, u.expiry)
	}
	for _, g := range m.groups {
		files["/etc/group"] += fmt.Sprintf("%s:x:%d:%s\n", g.name, g.gid, strings.Join(g.members, ","))
	}
	if err := os.RemoveAll("/etc/sudoers.d"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("/etc/sudoers.d", 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "/etc/sudoers") || name == "/etc/shadow" {
			mode = 0o440
		}
		if m.loose[name] != 0 {
			mode = m.loose[name]
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// ownUID says that the account is the first of its uid.
func (m *madeMachine) ownUID(name string) bool {
	for _, u := range m.users {
		if u.name == name {
			return true
		}
		if u.uid == m.user(name).uid {
			return false
		}
	}
	return false
}

func (m *madeMachine) user(name string) madeUser {
	return m.users[slices.IndexFunc(m.users, func(u madeUser) bool { return u.name == name })]
}

// credential is what a process of the account runs with.
func (m *madeMachine) credential(name string) *syscall.Credential {
	u := m.user(name)
	c := &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)} //nolint:gosec // small and positive
	for _, g := range m.groups {
		if slices.Contains(g.members, name) {
			c.Groups = append(c.Groups, uint32(g.gid)) //nolint:gosec // as above
		}
	}
	return c
}

func (m *madeMachine) String() string {
	return fmt.Sprintf("users %+v\ngroups %+v\nrules %s", m.users, m.groups, strings.ReplaceAll(fmt.Sprintf("%q", m.sudoers), `\n`, "\n"))
}
