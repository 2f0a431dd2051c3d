// Package unix reads the access that a Unix machine gives: its accounts and groups, who may log in, what sudo lets whom run as
// whom, and which SSH keys open which accounts. It promises that a sudo grant it emits is what sudo itself would answer to
// `sudo -l -U user -u target command`, and that whatever it could not read or understand is named as a gap of its scope. It relies
// on the name service (getent) for accounts and groups and on sudo's own parser (cvtsudoers) for the rules.
//
// The words of the graph. The machine is a resource `host` with the entitlements `login` (an account that can sign in) and `root`
// (full control). An account is a `user`; whoever holds its `become` can take its place. A group is a `group` with `member`. What
// sudo lets run is a `command` whose id is a command list in sudo's own notation (`/bin/ls`, `ALL, !/bin/sh`), with entitlements
// that say as whom: `sudo as postgres`, `sudo as ALL`, `sudo as ALL except root`, `sudo with group adm`. Where a command gives the
// target's whole power (ALL, a shell, su, sudoedit, an editor), an expansion leads to the target's `become`; so it does from `member` of
// a group that may write the socket of a daemon of root's (docker) or a disk. An authorized key is an `ssh_key`
// that holds `become` of the accounts it opens.
package unix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

// Scopes, in the order in which they are read.
const (
	// ScopeAccounts has the host, the accounts, and what uid 0 and shared uids mean.
	ScopeAccounts = "accounts"
	// ScopeGroups has the groups and their members.
	ScopeGroups = "groups"
	// ScopeLogins has who can sign in; it needs the shadow file.
	ScopeLogins = "logins"
	// ScopeSudoers has what sudo allows.
	ScopeSudoers = "sudoers"
	// ScopeKeys has the authorized SSH keys and who keeps their private halves.
	ScopeKeys = "ssh_keys"
)

// batch is how many records are handed over at once; between batches the sink is asked whether the slice is due.
const batch = 256

// Connector reads the machine whose files lie under a root.
type Connector struct {
	root   string
	reader Reader
}

// Reader asks a machine reader, which may read what this process may not, for a snapshot.
type Reader func(context.Context) (*Snapshot, error)

// New makes a connector of the machine whose file system is at root: "/" for this one. Under any other root the name service is
// left out and the files alone are read, since getent speaks of this machine only. What only root may read it asks a machine reader for,
// where there is one.
func New(root string, reader Reader) *Connector {
	return &Connector{root: filepath.Clean(root), reader: reader}
}

// position is the checkpoint: how many records of which reading of the machine were handed over.
type position struct {
	Reading string `json:"reading"`
	Next    int    `json:"next"`
}

// Read implements connector.Connector. The machine is read anew in every slice; when it says the same as before, reading goes on
// at the record after the last one, else it starts over, so that no grant speaks of an account that the run hasn't seen.
func (c *Connector) Read(ctx context.Context, source connector.Source, checkpoint []byte, sink connector.Sink) ([]byte, error) {
	var at position
	if checkpoint != nil {
		if err := json.Unmarshal(checkpoint, &at); err != nil || at.Next < 0 {
			return nil, connector.Permanent(errors.New("the checkpoint isn't one of the unix connector: start a new run"))
		}
	}
	sink.Progress("reading accounts, groups, sudo rules and SSH keys")
	found, err := c.snapshot(ctx, source)
	if err != nil {
		return nil, err
	}
	if reading := found.digest(); at.Reading != reading {
		at = position{Reading: reading}
	}
	records := found.records()
	for at.Next < len(records) {
		part := records[at.Next:min(at.Next+batch, len(records))]
		if err := sink.Emit(ctx, part...); err != nil {
			return nil, err
		}
		at.Next += len(part)
		if at.Next < len(records) && sink.Due() {
			return json.Marshal(at)
		}
	}
	// Scopes are declared at the very end, and the records before it are the same in every slice, so a scope is complete only
	// when one and the same reading of it was handed over whole.
	for _, scope := range []string{ScopeAccounts, ScopeGroups, ScopeLogins, ScopeSudoers, ScopeKeys} {
		gaps := found.gaps[scope]
		for _, reason := range gaps {
			sink.Gap(scope, reason)
		}
		if len(gaps) == 0 {
			sink.Complete(scope)
		}
	}
	return nil, nil
}

// Test implements connector.Connector: it reads the machine once and names what it could not read.
func (c *Connector) Test(ctx context.Context, source connector.Source) (connector.TestResult, error) {
	found, err := c.snapshot(ctx, source)
	if err != nil {
		return connector.TestResult{}, err
	}
	var missing []string
	for _, scope := range []string{ScopeAccounts, ScopeGroups, ScopeLogins, ScopeSudoers, ScopeKeys} {
		missing = append(missing, found.gaps[scope]...)
	}
	return connector.TestResult{
		OK:      true,
		Message: fmt.Sprintf("%d records can be read of %s", len(found.records()), found.host.GetExternalId()),
		Missing: missing,
	}, nil
}

// snapshot reads everything once.
func (c *Connector) snapshot(ctx context.Context, source connector.Source) (*graph, error) {
	settings := source.Settings.GetUnix()
	if settings == nil {
		return nil, connector.Permanent(errors.New("the integration has no unix settings: create it anew as a unix integration"))
	}
	m := newMachine(c.root)
	if err := m.readFacts(ctx); err != nil {
		return nil, err
	}
	g := newGraph(hostID(settings.GetHostName(), m.hostName), m)
	c.ask(ctx, m, g)
	if err := m.readAccounts(ctx, g); err != nil {
		return nil, err
	}
	m.readShadow(g)
	g.addAccounts(m)
	g.addGroups(m)
	g.addDoors(m)
	keys := m.readKeys(ctx, g)
	g.addLogins(m, keys)
	if err := readSudo(ctx, m, g); err != nil {
		return nil, err
	}
	g.addKeys(m, keys)
	return g, ctx.Err()
}

// ask has the machine's files be what the machine reader saw. Where it doesn't answer, that is a gap of all that it would have read.
func (c *Connector) ask(ctx context.Context, m *machine, g *graph) {
	if c.reader == nil {
		return
	}
	snapshot, err := c.reader(ctx)
	if err != nil {
		for _, scope := range []string{ScopeLogins, ScopeSudoers, ScopeKeys} {
			g.gap(scope, "the machine reader did not answer, so that what only root may read is not known: "+err.Error())
		}
		return
	}
	m.files = seen{disk: disk{c.root}, snapshot: snapshot}
}

// hostID is the name the machine is known by.
func hostID(configured, actual string) string {
	switch {
	case configured != "":
		return configured
	case actual != "":
		return actual
	}
	return "localhost"
}

// digest names what was read: equal machines have equal digests.
func (g *graph) digest() string {
	h := sha256.New()
	for _, r := range g.records() {
		h.Write([]byte(recordKey(r)))
		h.Write([]byte{0})
	}
	for _, scope := range slices.Sorted(mapsKeys(g.gaps)) {
		for _, reason := range g.gaps[scope] {
			fmt.Fprintf(h, "%s\x00%s\x00", scope, reason)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// recordKey is a record in words.
func recordKey(r *discoveryv1.Record) string {
	b, err := marshal.Marshal(r)
	if err != nil {
		// Only invalid UTF-8 fails, and graph cleans every text.
		return err.Error()
	}
	return string(b)
}
