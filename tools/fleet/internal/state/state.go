// Package state is what a plane on one machine remembers in plane.json: what was chosen once and must stay, and how far each step
// came. Every change is on disk before it is acted on, whole or not at all, so that a killed command is taken up where it was.
package state

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"a3os.app/libs/id"
	"a3os.app/libs/pgserver"
)

// version of the file's form.
const version = 1

// State of a plane. Several goroutines work with it at once, each on sets of its own: what is chosen or noted while they do is behind
// methods, which answer copies. What stands in Settled is written where one works alone.
type State struct {
	Settled

	mu    sync.Mutex
	noted noted
	path  string
}

// Settled is what a plane is, and stays while sets of it are changed.
type Settled struct {
	// Version of the form.
	Version int `json:"version"`
	// ID of this plane, random: what it keeps outside of its home is named by it.
	ID string `json:"id"`
	// Plane is `dev` or `prod`.
	Plane string `json:"plane"`
	// Front is the address that the gateway was told to listen on.
	Front string `json:"front"`
	// Served is the directory of what processes with users of their own read; empty is the plane's home.
	Served string `json:"served,omitempty"`
	// Platform that carries the plane's sets out; empty is local. A plane stays on the one that it was made on.
	Platform string `json:"platform,omitempty"`
	// Product is what the plane's tenants have, where that isn't AccessOS. A plane stays at the one that it was made for.
	Product *Product `json:"product,omitempty"`
	// Postgres are PostgreSQL's programs that the plane was brought up with.
	Postgres *Programs `json:"postgres,omitempty"`
}

// noted is what is chosen and noted while sets are changed.
type noted struct {
	// Ports of what listens on loopback, by name.
	Ports map[string]int `json:"ports"`
	// Migrated is the release whose migrations a set's database has, by set.
	Migrated map[string]string `json:"migrated"`
	// Runs is the release that a set runs, or was to run last, by set.
	Runs map[string]string `json:"runs,omitempty"`
	// Accounts are the user ids that processes run as and stores are shared by, by name. An id stays its name's for as long as the
	// plane is there, and is never used again for another. Empty where the plane can't give processes users of their own.
	Accounts map[string]uint32 `json:"accounts,omitempty"`
	// LastAccount is the highest user id that was ever chosen: none is used twice, also when its name is forgotten.
	LastAccount uint32 `json:"last_account,omitempty"`
	// Subnets of the plane's networks, by name, and Hosts the addresses in them, by network and member. Both stay for as long as the
	// network is there.
	Subnets map[string]netip.Prefix `json:"subnets,omitempty"`
	Hosts   map[string]netip.Addr   `json:"hosts,omitempty"`
	// Images that artefacts were made into, by the artefact's digest.
	Images map[string]string `json:"images,omitempty"`
	// Tenants in the order in which they came.
	Tenants []Tenant `json:"tenants"`
}

// file is the form of both on disk, and of what a tenant's process is given.
type file struct {
	Settled
	noted
}

// MarshalJSON writes the form that UnmarshalJSON reads.
func (s *State) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(file{s.Settled, s.noted})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *State) UnmarshalJSON(text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	s.Settled, s.noted = f.Settled, f.noted
	s.noted.fill()
	return nil
}

// Product is another product's set of services.
type Product struct {
	// Name of its blueprint, and File where that was read last.
	Name string `json:"name"`
	File string `json:"file"`
}

// Programs are an installation of PostgreSQL, and what its server's file was like: its size, and when it was changed, in nanoseconds since 1970.
type Programs struct {
	pgserver.Binaries
	Size    int64
	Changed int64
}

// Tenant is what the platform remembers of a tenant. The registry is the truth about it; this is how far its making came.
type Tenant struct {
	// Slug and Name as they were asked for.
	Slug string `json:"slug"`
	Name string `json:"name"`
	// Dedicated says that it has a database server of its own, as the registry's isolation tier does.
	Dedicated bool `json:"dedicated,omitempty"`
	// Account of the cloud that it has to itself, as the registry knows; empty where it is in the plane's.
	Account string `json:"account,omitempty"`
	// CreateKey is the idempotency key that an earlier release created it with.
	CreateKey string `json:"create_key,omitempty"`
	// Admin is the address of the first admin, as it was asked for.
	Admin string `json:"admin,omitempty"`
	// ID is zero until the registry gave it.
	ID id.Tenant `json:"id"`
	// URL is where the tenant was last reachable: the settings of another command may be others.
	URL string `json:"url,omitempty"`
	// Served says that its gateway has answered once: what follows is upkeep.
	Served bool `json:"served"`
	// Welcomed says that it was filled with what a newcomer wants to see.
	Welcomed bool `json:"welcomed"`
}

// Open reads the state of a home, or begins a new one there.
func Open(home string) (*State, error) {
	s := &State{Settled: Settled{Version: version, ID: strings.ToLower(rand.Text()[:12]), Plane: "dev"}, path: filepath.Join(home, "plane.json")}
	text, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the plane's state: %w", err)
	default:
		if err := json.Unmarshal(text, s); err != nil {
			return nil, fmt.Errorf("the plane's state in %s can't be read (%w): restore it, or remove the whole plane with make clean", s.path, err)
		}
		if s.Version != version {
			return nil, fmt.Errorf("the plane's state in %s has form %d and this program knows %d: use the program that wrote it", s.path, s.Version, version)
		}
	}
	s.noted.fill()
	return s, nil
}

func (n *noted) fill() {
	if n.Ports == nil {
		n.Ports = map[string]int{}
	}
	if n.Migrated == nil {
		n.Migrated = map[string]string{}
	}
	if n.Runs == nil {
		n.Runs = map[string]string{}
	}
	if n.Accounts == nil {
		n.Accounts = map[string]uint32{}
	}
	if n.Subnets == nil {
		n.Subnets = map[string]netip.Prefix{}
	}
	if n.Hosts == nil {
		n.Hosts = map[string]netip.Addr{}
	}
	if n.Images == nil {
		n.Images = map[string]string{}
	}
}

// Reload reads what another command changed meanwhile.
func (s *State) Reload() error {
	now, err := Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Settled, s.noted = now.Settled, now.noted
	return nil
}

// TakeUp makes this, which is new, the state of a plane that was lost with another machine: who it is, its tenants, and what they ran. What was
// chosen for that machine, ports and user ids, is chosen again for this one.
func (s *State) TakeUp(was []byte) error {
	old := &State{}
	if err := json.Unmarshal(was, old); err != nil || old.Version != version || old.ID == "" {
		return fmt.Errorf("what the plane was has form %d and this program knows %d: use the program that wrote it", old.Version, version)
	}
	if Exists(filepath.Dir(s.path)) && s.ID != old.ID {
		return fmt.Errorf("%s holds another plane: choose another place with A3_HOME", filepath.Dir(s.path))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ID, s.Plane, s.Platform, s.Product = old.ID, old.Plane, old.Platform, old.Product
	s.noted.Runs, s.noted.Tenants = old.noted.Runs, old.noted.Tenants
	s.noted.fill()
	return nil
}

// Remove forgets a tenant that left.
func (s *State) Remove(tenant id.Tenant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.noted.Tenants)
	s.noted.Tenants = slices.DeleteFunc(s.noted.Tenants, func(t Tenant) bool { return t.ID == tenant })
	if len(s.noted.Tenants) == before {
		return nil
	}
	return s.save()
}

// Drop forgets a tenant that never came to be.
func (s *State) Drop(slug string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted.Tenants = slices.DeleteFunc(s.noted.Tenants, func(t Tenant) bool { return t.Slug == slug && t.ID.IsZero() })
	return s.save()
}

// Exists says whether a home holds a plane.
func Exists(home string) bool {
	_, err := os.Stat(filepath.Join(home, "plane.json"))
	return err == nil
}

// Save writes the state, whole or not at all. A part of one is nobody's to keep.
func (s *State) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save()
}

func (s *State) save() error {
	if s.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(file{s.Settled, s.noted}, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path, append(text, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(s.path))); err != nil {
		return fmt.Errorf("write the plane's state: %w", err)
	}
	return nil
}

// Runs is the release that each set runs, or was to run last; a copy, as of each that follows.
func (s *State) Runs() map[string]string { return copied(s, &s.noted.Runs) }

// Migrated is the release whose migrations each set's database has.
func (s *State) Migrated() map[string]string { return copied(s, &s.noted.Migrated) }

// Ports of what listens on loopback, by name.
func (s *State) Ports() map[string]int { return copied(s, &s.noted.Ports) }

// Accounts are the user ids that were chosen, by name.
func (s *State) Accounts() map[string]uint32 { return copied(s, &s.noted.Accounts) }

// Images that artefacts were made into, by the artefact's digest.
func (s *State) Images() map[string]string { return copied(s, &s.noted.Images) }

// Subnets of the plane's networks, by name.
func (s *State) Subnets() map[string]netip.Prefix { return copied(s, &s.noted.Subnets) }

// Hosts are the addresses in the networks, by network and member.
func (s *State) Hosts() map[string]netip.Addr { return copied(s, &s.noted.Hosts) }

func copied[V any](s *State, m *map[string]V) map[string]V {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(*m)
}

// SetRuns remembers what a set runs from now on.
func (s *State) SetRuns(set, release string) error {
	return s.note(&s.noted.Runs, set, release)
}

// SetMigrated remembers what release's migrations a set's database has.
func (s *State) SetMigrated(set, release string) error {
	return s.note(&s.noted.Migrated, set, release)
}

func (s *State) note(in *map[string]string, name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (*in)[name] == value {
		return nil
	}
	(*in)[name] = value
	return s.save()
}

// Part is what whoever works on some sets has to know: what was chosen for those, and nothing of others.
func (s *State) Part(sets ...string) *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &State{Settled: Settled{Version: s.Version, ID: s.ID, Plane: s.Plane, Front: s.Front, Served: s.Served}, noted: noted{
		Ports: part(s.noted.Ports, sets), Migrated: part(s.noted.Migrated, sets), Runs: part(s.noted.Runs, sets),
		Accounts: part(s.noted.Accounts, sets), LastAccount: s.noted.LastAccount,
		Subnets: part(s.noted.Subnets, sets), Hosts: part(s.noted.Hosts, sets), Images: map[string]string{}}}
}

// part is what of a map is about one of some sets: its name, or what begins with that.
func part[V any](of map[string]V, sets []string) map[string]V {
	out := map[string]V{}
	for name, v := range of {
		set, _, _ := strings.Cut(name, "/")
		if slices.Contains(sets, set) {
			out[name] = v
		}
	}
	return out
}

// AccountsOf are the user ids that were chosen for a set, in order.
func (s *State) AccountsOf(set string) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Values(part(s.noted.Accounts, []string{set})))
}

// Forget forgets all that was chosen for a set.
func (s *State) Forget(set string) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, gone := range []bool{forget(s.noted.Ports, set), forget(s.noted.Migrated, set), forget(s.noted.Runs, set), forget(s.noted.Accounts, set)} {
		changed = changed || gone
	}
	if !changed {
		return false, nil
	}
	return true, s.save()
}

func forget[V any](of map[string]V, set string) (changed bool) {
	for name := range part(of, []string{set}) {
		delete(of, name)
		changed = true
	}
	return changed
}

// Mentions names what is remembered of a set.
func (s *State) Mentions(set string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name := range part(s.noted.Ports, []string{set}) {
		out = append(out, "port of "+name)
	}
	for name := range part(s.noted.Accounts, []string{set}) {
		out = append(out, "user id of "+name)
	}
	for name := range part(s.noted.Subnets, []string{set}) {
		out = append(out, "subnet of "+name)
	}
	for name := range part(s.noted.Hosts, []string{set}) {
		out = append(out, "address of "+name)
	}
	if _, ok := s.noted.Runs[set]; ok {
		out = append(out, "release of "+set)
	}
	slices.Sort(out)
	return out
}

// Tenant finds a tenant by slug or id, and answers a copy; see [State.Change].
func (s *State) Tenant(name string) (Tenant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.find(name); t != nil {
		return *t, true
	}
	return Tenant{}, false
}

func (s *State) find(name string) *Tenant {
	for i := range s.noted.Tenants {
		if t := &s.noted.Tenants[i]; t.Slug == name || !t.ID.IsZero() && t.ID.String() == name {
			return t
		}
	}
	return nil
}

// Tenants in the order in which they came; a copy.
func (s *State) Tenants() []Tenant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.noted.Tenants)
}

// Change changes what is remembered of a tenant, by slug or id, and answers a copy of what that is then.
func (s *State) Change(name string, change func(t *Tenant)) (Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.find(name)
	if t == nil {
		return Tenant{}, fmt.Errorf("the plane remembers no tenant %q", name)
	}
	return s.changed(t, change)
}

// Remember is Change for a tenant that may be new, by slug. One that left and whose slug another has now is not changed: an id that is
// remembered, and isn't the given one, is another tenant's.
func (s *State) Remember(slug string, tenant id.Tenant, change func(t *Tenant)) (Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.noted.Tenants {
		if t := &s.noted.Tenants[i]; t.Slug == slug && (tenant.IsZero() || t.ID.IsZero() || t.ID == tenant) {
			return s.changed(t, change)
		}
	}
	s.noted.Tenants = append(s.noted.Tenants, Tenant{Slug: slug, Name: slug})
	return s.changed(&s.noted.Tenants[len(s.noted.Tenants)-1], change)
}

func (s *State) changed(t *Tenant, change func(t *Tenant)) (Tenant, error) {
	before := *t
	if change(t); *t == before {
		return *t, nil
	}
	return *t, s.save()
}

// Account is the user id of a name, chosen once; see ChooseAccounts.
func (s *State) Account(name string, pick func(near uint32, n int) ([]uint32, error)) (uint32, error) {
	if err := s.ChooseAccounts([]string{name}, pick); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Accounts[name], nil
}

// ChooseAccounts chooses the user ids of those names that have none, once and all at once. pick answers so many ids that are nobody's, from
// near on; zero is anywhere.
func (s *State) ChooseAccounts(names []string, pick func(near uint32, n int) ([]uint32, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := s.noted.Accounts[name]; return ok })
	if len(names) == 0 {
		return nil
	}
	near := s.noted.LastAccount
	for _, id := range s.noted.Accounts {
		near = max(near, id)
	}
	if near > 0 {
		near++
	}
	ids, err := pick(near, len(names))
	if err != nil {
		return err
	}
	if len(ids) != len(names) {
		return fmt.Errorf("%d user ids are needed and %d were picked", len(names), len(ids))
	}
	for i, name := range names {
		s.noted.Accounts[name] = ids[i]
		s.noted.LastAccount = max(s.noted.LastAccount, ids[i])
	}
	return s.save()
}

// Ports below those that systems hand out by themselves (32768 on Linux), so that a connection made by chance does not sit on one.
const (
	firstPort = 20000
	portCount = 10000
)

// Port is the port of a name, chosen once: free at that moment, and nobody else's in this plane.
func (s *State) Port(name string) (int, error) {
	if err := s.ChoosePorts([]string{name}); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Ports[name], nil
}

// ChoosePorts chooses the ports of those names that have none, once and all at once; see Port.
func (s *State) ChoosePorts(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := false
	for _, name := range names {
		if _, ok := s.noted.Ports[name]; ok {
			continue
		}
		port, err := s.freePort()
		if err != nil {
			return err
		}
		s.noted.Ports[name], chosen = port, true
	}
	if !chosen {
		return nil
	}
	return s.save()
}

func (s *State) freePort() (int, error) {
	taken := slices.Collect(maps.Values(s.noted.Ports))
	const tries = 200
	for range tries {
		n, err := rand.Int(rand.Reader, big.NewInt(portCount))
		if err != nil {
			return 0, err
		}
		if port := firstPort + int(n.Int64()); !slices.Contains(taken, port) && Free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port was found between %d and %d on 127.0.0.1", firstPort, firstPort+portCount)
}

// ForgetTaken gives up ports that somebody else listens on by now. It is for a plane that is not running.
func (s *State) ForgetTaken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for name, port := range s.noted.Ports {
		if !Free(port) {
			delete(s.noted.Ports, name)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return s.save()
}

// Free says whether a port of 127.0.0.1 can be listened on.
func Free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // loopback answers at once
	if err != nil {
		return false
	}
	return l.Close() == nil
}
