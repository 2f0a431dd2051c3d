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
	"reflect"
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

// State of a plane.
type State struct {
	// Version of the form.
	Version int `json:"version"`
	// ID of this plane, random: what it keeps outside of its home is named by it.
	ID string `json:"id"`
	// Plane is `dev` or `prod`.
	Plane string `json:"plane"`
	// Ports of what listens on loopback, by name.
	Ports map[string]int `json:"ports"`
	// Front is the address that the gateway was told to listen on.
	Front string `json:"front"`
	// Migrated is the release whose migrations a set's database has, by set.
	Migrated map[string]string `json:"migrated"`
	// Runs is the release that a set runs, or was to run last, by set.
	Runs map[string]string `json:"runs,omitempty"`
	// Accounts are the user ids that processes run as and stores are shared by, by name. An id stays its name's for as long as the
	// plane is there, and is never used again for another. Empty where the plane can't give processes users of their own.
	Accounts map[string]uint32 `json:"accounts,omitempty"`
	// Served is the directory of what processes with users of their own read; empty is the plane's home.
	Served string `json:"served,omitempty"`
	// Platform that carries the plane's sets out; empty is local. A plane stays on the one that it was made on.
	Platform string `json:"platform,omitempty"`
	// Product is what the plane's tenants have, where that isn't AccessOS. A plane stays at the one that it was made for.
	Product *Product `json:"product,omitempty"`
	// Postgres are PostgreSQL's programs that the plane was brought up with.
	Postgres *Programs `json:"postgres,omitempty"`
	// Subnets of the plane's networks, by name, and Hosts the addresses in them, by network and member. Both stay for as long as the
	// network is there.
	Subnets map[string]netip.Prefix `json:"subnets,omitempty"`
	Hosts   map[string]netip.Addr   `json:"hosts,omitempty"`
	// Images that artefacts were made into, by the artefact's digest.
	Images map[string]string `json:"images,omitempty"`
	// Tenants in the order in which they came.
	Tenants []Tenant `json:"tenants"`

	// LastAccount is the highest user id that was ever chosen: none is used twice, also when its name is forgotten.
	LastAccount uint32 `json:"last_account,omitempty"`

	path string
	mu   sync.Mutex
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
	s := &State{Version: version, ID: strings.ToLower(rand.Text()[:12]), Plane: "dev", path: filepath.Join(home, "plane.json")}
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
	if s.Ports == nil {
		s.Ports = map[string]int{}
	}
	if s.Migrated == nil {
		s.Migrated = map[string]string{}
	}
	if s.Runs == nil {
		s.Runs = map[string]string{}
	}
	return s, nil
}

// Reload reads what another command changed meanwhile.
func (s *State) Reload() error {
	now, err := Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	into, from := reflect.ValueOf(s).Elem(), reflect.ValueOf(now).Elem()
	for i := range into.NumField() {
		if into.Type().Field(i).IsExported() {
			into.Field(i).Set(from.Field(i))
		}
	}
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
	s.ID, s.Plane, s.Platform, s.Product, s.Runs, s.Tenants = old.ID, old.Plane, old.Platform, old.Product, old.Runs, old.Tenants
	return nil
}

// Remove forgets a tenant that left.
func (s *State) Remove(tenant id.Tenant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.Tenants)
	s.Tenants = slices.DeleteFunc(s.Tenants, func(t Tenant) bool { return t.ID == tenant })
	if len(s.Tenants) == before {
		return nil
	}
	return s.save()
}

// Drop forgets a tenant that never came to be.
func (s *State) Drop(slug string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Tenants = slices.DeleteFunc(s.Tenants, func(t Tenant) bool { return t.Slug == slug && t.ID.IsZero() })
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
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path, append(text, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(s.path))); err != nil {
		return fmt.Errorf("write the plane's state: %w", err)
	}
	return nil
}

// SetRuns remembers what a set runs from now on.
func (s *State) SetRuns(set, release string) error { return s.note(s.Runs, set, release) }

// SetMigrated remembers what release's migrations a set's database has.
func (s *State) SetMigrated(set, release string) error { return s.note(s.Migrated, set, release) }

func (s *State) note(in map[string]string, set, release string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in[set] == release {
		return nil
	}
	in[set] = release
	return s.save()
}

// Part is what whoever works on some sets has to know: what was chosen for those, and nothing of others.
func (s *State) Part(sets ...string) *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &State{Version: s.Version, ID: s.ID, Plane: s.Plane, Front: s.Front, Served: s.Served, LastAccount: s.LastAccount,
		Ports: part(s.Ports, sets), Migrated: part(s.Migrated, sets), Runs: part(s.Runs, sets), Accounts: part(s.Accounts, sets),
		Subnets: part(s.Subnets, sets), Hosts: part(s.Hosts, sets)}
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
	return slices.Sorted(maps.Values(part(s.Accounts, []string{set})))
}

// Forget forgets all that was chosen for a set.
func (s *State) Forget(set string) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, gone := range []bool{forget(s.Ports, set), forget(s.Migrated, set), forget(s.Runs, set), forget(s.Accounts, set)} {
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
	for name := range part(s.Ports, []string{set}) {
		out = append(out, "port of "+name)
	}
	for name := range part(s.Accounts, []string{set}) {
		out = append(out, "user id of "+name)
	}
	for name := range part(s.Subnets, []string{set}) {
		out = append(out, "subnet of "+name)
	}
	for name := range part(s.Hosts, []string{set}) {
		out = append(out, "address of "+name)
	}
	if _, ok := s.Runs[set]; ok {
		out = append(out, "release of "+set)
	}
	slices.Sort(out)
	return out
}

// Tenant finds a tenant by slug or id.
func (s *State) Tenant(name string) (*Tenant, bool) {
	for i := range s.Tenants {
		if t := &s.Tenants[i]; t.Slug == name || !t.ID.IsZero() && t.ID.String() == name {
			return t, true
		}
	}
	return nil, false
}

// Account is the user id of a name, chosen once; see ChooseAccounts.
func (s *State) Account(name string, pick func(near uint32, n int) ([]uint32, error)) (uint32, error) {
	if err := s.ChooseAccounts([]string{name}, pick); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Accounts[name], nil
}

// ChooseAccounts chooses the user ids of those names that have none, once and all at once. pick answers so many ids that are nobody's, from
// near on; zero is anywhere.
func (s *State) ChooseAccounts(names []string, pick func(near uint32, n int) ([]uint32, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := s.Accounts[name]; return ok })
	if len(names) == 0 {
		return nil
	}
	near := s.LastAccount
	for _, id := range s.Accounts {
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
	if s.Accounts == nil {
		s.Accounts = map[string]uint32{}
	}
	for i, name := range names {
		s.Accounts[name] = ids[i]
		s.LastAccount = max(s.LastAccount, ids[i])
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
	return s.Ports[name], nil
}

// ChoosePorts chooses the ports of those names that have none, once and all at once; see Port.
func (s *State) ChoosePorts(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := false
	for _, name := range names {
		if _, ok := s.Ports[name]; ok {
			continue
		}
		port, err := s.freePort()
		if err != nil {
			return err
		}
		s.Ports[name], chosen = port, true
	}
	if !chosen {
		return nil
	}
	return s.save()
}

func (s *State) freePort() (int, error) {
	taken := slices.Collect(maps.Values(s.Ports))
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
	for name, port := range s.Ports {
		if !Free(port) {
			delete(s.Ports, name)
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
