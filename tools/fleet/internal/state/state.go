// Package state is what a plane on one machine remembers in plane.json: what was chosen once and must stay, and how far each step
// came. Every change is on disk before it is acted on, whole or not at all, so that a killed command is taken up where it was.
package state

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

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
	// Blueprints are the digests of those that sets run by, or were to run by last, by set. Of one that was started by a release before this
	// one it isn't known.
	Blueprints map[string]string `json:"blueprints,omitempty"`
	// Accounts are the user ids that processes run as and stores are shared by, by name. An id stays its name's for as long as the
	// plane is there, and is never used again for another. Empty where the plane can't give processes users of their own.
	Accounts map[string]uint32 `json:"accounts,omitempty"`
	// FirstAccount and LastAccount are the user ids that were chosen first and last. Between them lie all that ever were, going round at the
	// end of those that there are: none is used twice, also when its name is forgotten.
	FirstAccount uint32 `json:"first_account,omitempty"`
	LastAccount  uint32 `json:"last_account,omitempty"`
	// Subnets of the plane's networks, by name, and Hosts the addresses in them, by network and member. Both stay for as long as the
	// network is there.
	Subnets map[string]netip.Prefix `json:"subnets,omitempty"`
	Hosts   map[string]netip.Addr   `json:"hosts,omitempty"`
	// Images that artefacts were made into, by the artefact's digest.
	Images map[string]string `json:"images,omitempty"`
	// Keys are those that were made, by set and name: another is not made in the place of one that is gone.
	Keys map[string]bool `json:"keys,omitempty"`
	// Renewals are keys that were made anew, and of which something is still to be done or told.
	Renewals []Renewal `json:"renewals,omitempty"`
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
	if n.Blueprints == nil {
		n.Blueprints = map[string]string{}
	}
	if n.Accounts == nil {
		n.Accounts = map[string]uint32{}
	}
	if n.Keys == nil {
		n.Keys = map[string]bool{}
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
	s.noted.Runs, s.noted.Blueprints, s.noted.Tenants = old.noted.Runs, old.noted.Blueprints, old.noted.Tenants
	s.noted.fill()
	return nil
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
	return s.sweep()
}

// sweep removes what a process left that was killed while it wrote: a tenant that is gone would be found in it. One that is new may be somebody's
// who writes now.
func (s *State) sweep() error {
	const writing = 10 * time.Second
	dir, name := filepath.Split(s.path)
	left, err := filepath.Glob(filepath.Join(dir, "."+name+"[0-9]*"))
	if err != nil {
		return fmt.Errorf("look for what is left of the plane's state: %w", err)
	}
	for _, file := range left {
		if info, err := os.Stat(file); err != nil || time.Since(info.ModTime()) < writing {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what is left of the plane's state: %w", err)
		}
	}
	return nil
}

// Runs is the release that each set runs, or was to run last; a copy, as of each that follows.
func (s *State) Runs() map[string]string { return copied(s, &s.noted.Runs) }

// Blueprints are the digests of those that sets run by, or were to run by last.
func (s *State) Blueprints() map[string]string { return copied(s, &s.noted.Blueprints) }

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

// SetRuns remembers what a set runs from now on: the release, and the digest of the blueprint that it is started by.
func (s *State) SetRuns(set, release, blueprint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noted.Runs[set] == release && s.noted.Blueprints[set] == blueprint {
		return nil
	}
	s.noted.Runs[set], s.noted.Blueprints[set] = release, blueprint
	return s.save()
}

// SetMigrated remembers what release's migrations a set's database has.
func (s *State) SetMigrated(set, release string) error {
	return s.note(&s.noted.Migrated, set, release)
}

// KeyMade says whether a key of a set was made once.
func (s *State) KeyMade(set, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted.Keys[set+"/"+key]
}

// SetKeysMade remembers that keys of a set were made. Where now is false it may be written with what is remembered next: whoever finds them made, and not
// remembered, remembers them.
func (s *State) SetKeysMade(set string, now bool, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var changed bool
	for _, key := range keys {
		changed = changed || !s.noted.Keys[set+"/"+key]
		s.noted.Keys[set+"/"+key] = true
	}
	if !changed || !now {
		return nil
	}
	return s.save()
}

// ForgetKeys has keys of a set be made again that are gone; all of them where none is named.
func (s *State) ForgetKeys(set string, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := len(keys) == 0 && forget(s.noted.Keys, set)
	for _, key := range keys {
		changed = changed || s.noted.Keys[set+"/"+key]
		delete(s.noted.Keys, set+"/"+key)
	}
	if !changed {
		return nil
	}
	return s.save()
}

// Renewal is that a key of a set which was gone is made anew.
type Renewal struct {
	// Set and Key, by their names.
	Set string `json:"set"`
	Key string `json:"key"`
	// Reason why.
	Reason string `json:"reason"`
}

// Renewals of a set's keys that aren't finished.
func (s *State) Renewals(set string) []Renewal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.noted.Renewals), func(r Renewal) bool { return r.Set != set })
}

// BeginRenewal remembers that a key is made anew, until FinishRenewal.
func (s *State) BeginRenewal(r Renewal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetRenewal(r)
	s.noted.Renewals = append(s.noted.Renewals, r)
	return s.save()
}

// FinishRenewal forgets it.
func (s *State) FinishRenewal(r Renewal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetRenewal(r)
	return s.save()
}

func (s *State) forgetRenewal(r Renewal) {
	s.noted.Renewals = slices.DeleteFunc(s.noted.Renewals, func(have Renewal) bool { return have.Set == r.Set && have.Key == r.Key })
}

// SetImage remembers what image an artefact was made into.
func (s *State) SetImage(digest, image string) error {
	return s.note(&s.noted.Images, digest, image)
}

// ForgetImage gives up what image an artefact was made into.
func (s *State) ForgetImage(digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.noted.Images[digest]; !ok {
		return nil
	}
	delete(s.noted.Images, digest)
	return s.save()
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
		Ports: part(s.noted.Ports, sets), Migrated: part(s.noted.Migrated, sets), Runs: part(s.noted.Runs, sets), Blueprints: part(s.noted.Blueprints, sets),
		Accounts: part(s.noted.Accounts, sets), Keys: part(s.noted.Keys, sets), FirstAccount: s.noted.FirstAccount, LastAccount: s.noted.LastAccount,
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

// Forget forgets all that was chosen for a set.
func (s *State) Forget(set string) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, gone := range []bool{forget(s.noted.Ports, set), forget(s.noted.Migrated, set), forget(s.noted.Runs, set), forget(s.noted.Blueprints, set), forget(s.noted.Accounts, set),
		forget(s.noted.Keys, set)} {
		changed = changed || gone
	}
	if had := len(s.noted.Renewals); had > 0 {
		s.noted.Renewals = slices.DeleteFunc(s.noted.Renewals, func(r Renewal) bool { return r.Set == set })
		changed = changed || len(s.noted.Renewals) < had
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
