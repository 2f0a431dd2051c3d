package unix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// authorizedKey is one line of one account's authorized_keys.
type authorizedKey struct {
	account *account
	key     ssh.PublicKey
	comment string
	// at is file and line.
	at string
	// command is the only one the key may run; empty means any.
	command string
	// from are the addresses it is taken from; empty means any.
	from string
	// authority says that the key signs others that open the account.
	authority bool
}

// readKeys reads the authorized keys of all accounts.
func (m *machine) readKeys(ctx context.Context, g *graph) []*authorizedKey {
	patterns := m.keyFiles(g)
	var keys []*authorizedKey
	for _, a := range m.accounts {
		if ctx.Err() != nil {
			return keys
		}
		for _, pattern := range patterns {
			name := expandKeyFile(pattern, a)
			if name == "" {
				continue
			}
			content, err := m.read(name)
			if notThere(err) {
				continue
			}
			if err != nil {
				g.gap(ScopeKeys, why(name, err))
				continue
			}
			keys = append(keys, parseKeys(g, a, name, content)...)
		}
	}
	return keys
}

// expandKeyFile is where an account's keys lie, by the tokens of sshd_config(5).
func expandKeyFile(pattern string, a *account) string {
	if a.home == "" && !filepath.IsAbs(pattern) {
		return ""
	}
	name := strings.NewReplacer("%%", "%", "%h", a.home, "%u", a.name, "%U", fmt.Sprint(a.uid)).Replace(pattern)
	if !filepath.IsAbs(name) {
		name = filepath.Join(a.home, name)
	}
	return filepath.Clean(name)
}

// parseKeys reads the lines of an authorized_keys file. sshd passes over lines it can't read; here they are gaps, since this
// reader and sshd may not know the same kinds of keys.
func parseKeys(g *graph, a *account, name string, content []byte) []*authorizedKey {
	var keys []*authorizedKey
	number := 0
	for line := range bytes.Lines(content) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		at := fmt.Sprintf("%s:%d", name, number)
		key, comment, options, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			g.gap(ScopeKeys, at+": is no key that can be read")
			continue
		}
		k := &authorizedKey{account: a, key: key, comment: comment, at: at}
		expired := false
		for _, option := range options {
			option, value, _ := strings.Cut(option, "=")
			value = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`), `\"`, `"`)
			switch strings.ToLower(option) {
			case "command":
				k.command = value
			case "from":
				k.from = value
			case "cert-authority":
				k.authority = true
			case "expiry-time":
				until, err := keyExpiry(value)
				if err != nil {
					g.gap(ScopeKeys, at+": expiry-time can't be read")
				}
				expired = err != nil || !g.now.Before(until)
			}
		}
		if !expired {
			keys = append(keys, k)
		}
	}
	return keys
}

// keyExpiry reads YYYYMMDD[HHMM[SS]][Z], which is in the machine's zone without Z (sshd(8)).
func keyExpiry(value string) (time.Time, error) {
	zone := time.Local
	if strings.HasSuffix(value, "Z") {
		zone, value = time.UTC, strings.TrimSuffix(value, "Z")
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(value) {
			return time.ParseInLocation(layout, value, zone)
		}
	}
	return time.Time{}, errors.New("is no time")
}

// keyFiles answers the patterns of AuthorizedKeysFile: sshd's default unless its configuration says otherwise.
func (m *machine) keyFiles(g *graph) []string {
	config := &sshdConfig{machine: m, graph: g}
	config.read("/etc/ssh/sshd_config", 0)
	if config.files == nil {
		return []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}
	}
	return slices.DeleteFunc(config.files, func(s string) bool { return strings.EqualFold(s, "none") })
}

// sshdConfig follows the few words of sshd_config that say where keys are.
type sshdConfig struct {
	machine *machine
	graph   *graph
	files   []string
	inMatch bool
}

func (c *sshdConfig) read(name string, depth int) {
	content, err := c.machine.read(name)
	if notThere(err) {
		return
	}
	if err != nil {
		c.graph.gap(ScopeKeys, why(name, err)+": where keys are looked for is not known")
		return
	}
	for number, line := range numbered(string(content)) {
		fields := strings.Fields(strings.Replace(strings.TrimSpace(line), "=", " ", 1))
		if len(fields) < 2 {
			continue
		}
		at := fmt.Sprintf("%s:%d", name, number)
		for i := range fields {
			fields[i] = strings.Trim(fields[i], `"`)
		}
		switch strings.ToLower(fields[0]) {
		case "match":
			c.inMatch = !strings.EqualFold(fields[1], "all")
		case "include":
			if depth < 16 {
				c.include(fields[1:], depth)
			}
		case "authorizedkeysfile":
			switch {
			case c.inMatch:
				c.graph.gap(ScopeKeys, at+": AuthorizedKeysFile inside Match is not followed")
			case c.files == nil:
				c.files = fields[1:]
			}
		case "authorizedkeyscommand":
			if !strings.EqualFold(fields[1], "none") {
				c.graph.gap(ScopeKeys, at+": keys that AuthorizedKeysCommand answers are not known")
			}
		}
	}
}

func (c *sshdConfig) include(patterns []string, depth int) {
	for _, pattern := range patterns {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/ssh", pattern)
		}
		// A Match that an included file opens ends with that file.
		outside := c.inMatch
		for _, found := range c.machine.expand(pattern) {
			c.read(found, depth+1)
			c.inMatch = outside
		}
	}
}

// addKeys adds keys, what they open, and who keeps their private halves.
func (g *graph) addKeys(m *machine, keys []*authorizedKey) {
	known := map[string]*discoveryv1.ResourceRef{}
	for _, k := range keys {
		fingerprint := ssh.FingerprintSHA256(k.key)
		name := k.comment
		if name == "" {
			name = fingerprint
		}
		holder := g.resource(ScopeKeys, &discoveryv1.Resource{
			Type: typeKey, ExternalId: fingerprint, DisplayName: name, Parent: g.host,
			Attributes: map[string]string{"algorithm": k.key.Type(), "comment": k.comment},
		})
		known[fingerprint] = holder
		user := ref(typeUser, k.account.name)
		reason := k.at
		if k.authority {
			reason += ", for keys that this one has signed"
		}
		if k.from != "" {
			reason += ", from " + k.from
		}
		if k.command != "" {
			forced := g.entitlement(ScopeKeys, user, "forced command", permission, "run, as the account, the one command that the key is bound to")
			g.grant(ScopeKeys, holder, forced, reason+": "+k.command)
			continue
		}
		g.grant(ScopeKeys, holder, g.become(user), reason)
	}
	g.addPrivateKeys(m, known)
}

// addPrivateKeys adds which accounts keep the private half of a key that opens something. The public half that lies beside a
// private key says which one it is, so that no private key is read.
func (g *graph) addPrivateKeys(m *machine, known map[string]*discoveryv1.ResourceRef) {
	for _, a := range m.accounts {
		if a.home == "" || a.home == "/" {
			continue
		}
		dir := filepath.Join(a.home, ".ssh")
		names, err := m.readDir(dir)
		if err != nil {
			if !notThere(err) {
				g.gap(ScopeKeys, why(dir, err))
			}
			continue
		}
		for _, name := range names {
			private, isPublic := strings.CutSuffix(filepath.Join(dir, name), ".pub")
			if !isPublic {
				continue
			}
			if info, err := m.stat(private); errors.Is(err, fs.ErrNotExist) || err == nil && !info.mode.IsRegular() {
				continue
			}
			content, err := m.read(private + ".pub")
			if err != nil {
				g.gap(ScopeKeys, why(private+".pub", err))
				continue
			}
			key, _, _, _, err := ssh.ParseAuthorizedKey(content)
			if err != nil {
				continue
			}
			if holder, ok := known[ssh.FingerprintSHA256(key)]; ok {
				use := g.entitlement(ScopeKeys, holder, entUse, assumption, "sign in with the key")
				g.grant(ScopeKeys, ref(typeUser, a.name), use, private)
			}
		}
	}
}
