package unix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// account is a line of the passwd database and what the shadow file says of it.
type account struct {
	name       string
	uid, gid   uint32
	gecos      string
	home       string
	shell      string
	password   string // the passwd field; `x` means shadow
	shadow     *shadow
	shadowRead bool
	// gids are all that the account has, its primary one first.
	gids []uint32
	// groupNames are the names of gids as the system resolves them: of groups that share a gid, the first.
	groupNames []string
}

// group is a line of the group database.
type group struct {
	name    string
	gid     uint32
	members []string
}

// readAccounts reads accounts and groups, by getent where the machine is this one and getent is there, else from the files.
func (m *machine) readAccounts(ctx context.Context, g *graph) error {
	passwd, err := m.database(ctx, g, ScopeAccounts, "passwd")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for number, line := range numbered(passwd) {
		a, err := parsePasswd(line)
		if err != nil {
			g.gap(ScopeAccounts, fmt.Sprintf("/etc/passwd:%d: %v", number, err))
			continue
		}
		// Of two lines with one name the system sees the first.
		if seen[a.name] {
			continue
		}
		seen[a.name] = true
		m.accounts = append(m.accounts, a)
		m.byName[a.name] = a
	}
	groups, err := m.database(ctx, g, ScopeGroups, "group")
	if err != nil {
		return err
	}
	for number, line := range numbered(groups) {
		one, err := parseGroup(line)
		if err != nil {
			g.gap(ScopeGroups, fmt.Sprintf("/etc/group:%d: %v", number, err))
			continue
		}
		m.groups = append(m.groups, one)
	}
	m.resolveGroups()
	return nil
}

// database answers the lines of passwd or group.
func (m *machine) database(ctx context.Context, g *graph, scope, name string) (string, error) {
	if m.here() {
		out, _, err := run(ctx, nil, "getent", name)
		switch {
		case err == nil:
			return string(out), nil
		case errors.Is(err, exec.ErrNotFound):
			g.gap(scope, fmt.Sprintf("getent is not installed: only /etc/%s was read, and what directories such as LDAP add was not", name))
		case ctx.Err() != nil:
			return "", err
		default:
			g.gap(scope, fmt.Sprintf("getent %s failed, only /etc/%s was read: %v", name, name, err))
		}
	}
	content, err := m.read("/etc/" + name)
	if err != nil {
		return "", fmt.Errorf("read the machine's %s database: %s", name, why("/etc/"+name, err))
	}
	return string(content), nil
}

// numbered yields the lines that say something, with their numbers.
func numbered(text string) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		number := 0
		for line := range strings.Lines(text) {
			number++
			line = strings.TrimRight(line, "\r\n")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !yield(number, line) {
				return
			}
		}
	}
}

func parsePasswd(line string) (*account, error) {
	f := strings.Split(line, ":")
	if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
		return nil, errors.New("NIS compat entries are not followed")
	}
	if len(f) != 7 || f[0] == "" {
		return nil, errors.New("is not a line of seven fields")
	}
	uid, err := parseID(f[2])
	if err != nil {
		return nil, fmt.Errorf("uid: %w", err)
	}
	gid, err := parseID(f[3])
	if err != nil {
		return nil, fmt.Errorf("gid: %w", err)
	}
	return &account{name: f[0], password: f[1], uid: uid, gid: gid, gecos: f[4], home: f[5], shell: f[6]}, nil
}

func parseGroup(line string) (*group, error) {
	f := strings.Split(line, ":")
	if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
		return nil, errors.New("NIS compat entries are not followed")
	}
	if len(f) != 4 || f[0] == "" {
		return nil, errors.New("is not a line of four fields")
	}
	gid, err := parseID(f[2])
	if err != nil {
		return nil, fmt.Errorf("gid: %w", err)
	}
	var members []string
	for name := range strings.SplitSeq(f[3], ",") {
		if name = strings.TrimSpace(name); name != "" {
			members = append(members, name)
		}
	}
	return &group{name: f[0], gid: gid, members: members}, nil
}

func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of 32 bits", s)
	}
	return uint32(id), nil
}

// resolveGroups works out every account's gids as initgroups(3) does, and their names as getgrgid(3) does.
func (m *machine) resolveGroups() {
	gidName := map[uint32]string{}
	listed := map[string][]uint32{}
	for _, one := range m.groups {
		if _, ok := gidName[one.gid]; !ok {
			gidName[one.gid] = one.name
		}
		for _, name := range one.members {
			listed[name] = append(listed[name], one.gid)
		}
	}
	for _, a := range m.accounts {
		a.gids = []uint32{a.gid}
		for _, gid := range listed[a.name] {
			if !slices.Contains(a.gids, gid) {
				a.gids = append(a.gids, gid)
			}
		}
		for _, gid := range a.gids {
			if name, ok := gidName[gid]; ok {
				a.groupNames = append(a.groupNames, name)
			}
		}
	}
}

// canLogIn says that the account's shell is one that can be used. An empty shell means /bin/sh.
func (a *account) canLogIn() bool {
	base := a.shell[strings.LastIndexByte(a.shell, '/')+1:]
	return base != "nologin" && base != "false" && base != "true" && base != "sync" && base != "halt" && base != "shutdown"
}
