package local

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
)

// World is what every set of the plane holds, for who proves that they are isolated. pids are the processes, by unit.
func (p *Platform) World(sets []platform.Set, pids map[string]int) (*isolation.World, error) {
	w := &isolation.World{
		Plane: p.State.Plane, Release: releasesOf(p.State.Runs(), sets),
		Front: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", p.Settings.Dial())
		},
		RegistryID: workload.Identity{Plane: p.State.Plane, Service: registryService},
		Databases:  []string{databaseName(p.Own), "postgres", "template1"},
		AdminURL:   p.adminURL(p.Own),
		Files:      p.planeFiles(),
	}
	var errs []error
	var err error
	w.Registry, err = p.Address(p.Own, registryService, "api")
	errs = append(errs, err)
	w.PlaneRoots, err = p.pool(p.Own)
	errs = append(errs, err)
	w.Operator, err = workload.OpenSource(p.served("pki", workload.Operator), workload.Identity{Plane: p.State.Plane, Service: workload.Operator})
	errs = append(errs, err)
	w.MarkKeys, err = p.markKeys()
	errs = append(errs, err)
	for _, s := range sets {
		set, err := p.holdings(s, pids)
		if err != nil {
			errs = append(errs, fmt.Errorf("what %s holds: %w", s.Slug, err))
			continue
		}
		w.Sets = append(w.Sets, set)
	}
	return w, errors.Join(errs...)
}

// releasesOf is what sets run: one release, or each with those that run it.
func releasesOf(runs map[string]string, sets []platform.Set) string {
	by := map[string][]string{}
	for _, s := range sets {
		release := cmp.Or(runs[s.Name()], "not known")
		by[release] = append(by[release], s.Slug)
	}
	names := slices.Sorted(maps.Keys(by))
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	for i, release := range names {
		names[i] = release + " (" + strings.Join(by[release], ", ") + ")"
	}
	return strings.Join(names, ", ")
}

// adminURL is the superuser's connection string to a database of a set's server.
func (p *Platform) adminURL(s platform.Set) func(database string) (config.Secret, error) {
	return func(database string) (config.Secret, error) {
		server, err := p.databases(s)
		if err != nil {
			return config.Secret{}, err
		}
		url, err := server.URL(database)
		return config.NewSecret(url), err
	}
}

func (p *Platform) pool(s platform.Set) (*x509.CertPool, error) {
	roots, err := p.Roots(s)
	if err != nil {
		return nil, err
	}
	return workload.ParseRoots(p.domain(s), roots)
}

// holdings are one set's credentials, and where it is.
func (p *Platform) holdings(s platform.Set, pids map[string]int) (*isolation.Set, error) {
	out := &isolation.Set{Tenant: s.Tenant, Slug: s.Slug, URL: p.Settings.URL(s.Slug)}
	var err error
	if out.Roots, err = p.pool(s); err != nil {
		return nil, err
	}
	for _, c := range s.Blueprint.Components {
		component := &isolation.Component{Name: c.Name, Routes: c.Routes, Reports: slices.Contains(c.Needs.Plane, registryService), User: userOf(pids[unitName(s, c.Name)])}
		if component.Address, err = p.Address(s, c.Name, "api"); err != nil {
			return nil, err
		}
		identity := workload.Identity{Plane: p.State.Plane, Tenant: s.Tenant, Service: c.Name}
		if component.Source, err = workload.OpenSource(p.dir(s, "components", c.Name, "certificate"), identity); err != nil {
			return nil, err
		}
		if c.Needs.IssuingAuthority {
			component.Authority = p.issuingAuthority(s, c)
		}
		out.Components = append(out.Components, component)
	}
	if d := s.Blueprint.Database; d != nil {
		out.Database, out.Queue = databaseName(s), d.Queue
		if out.OwnServer = s.Dedicated(); out.OwnServer {
			out.AdminURL = p.adminURL(s)
		}
		if out.OwnerURL, err = p.secretFile(p.urlFile(s, ownerRole)); err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
			url, err := p.secretFile(p.urlFile(s, name))
			if err != nil {
				return nil, err
			}
			out.Roles = append(out.Roles, &isolation.Role{Name: name, URL: url, Schemas: d.Roles[name].Schemas})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Stores)) {
		store := isolation.Store{Name: name, Kind: s.Blueprint.Stores[name].Kind}
		if _, here := p.storesHere(s)[name]; here {
			store.Dir = p.store(s, name)
		}
		if key := s.Blueprint.Stores[name].Key; key != "" {
			public, err := os.ReadFile(p.publicFile(s, key))
			if err != nil {
				return nil, err
			}
			store.Public = strings.TrimSpace(string(public))
			if store.Private, err = p.secretFile(p.keyFile(s, key)); err != nil {
				return nil, err
			}
		}
		out.Stores = append(out.Stores, store)
	}
	out.Files = p.files(s)
	return out, nil
}

func (p *Platform) secretFile(path string) (config.Secret, error) {
	text, err := os.ReadFile(path)
	return config.NewSecret(strings.TrimSpace(string(text))), err
}

// files are a set's own with secrets or data in them, and the components that may open each.
func (p *Platform) files(s platform.Set) []isolation.File {
	holders := map[string][]string{}
	for _, c := range s.Blueprint.Components {
		for _, role := range c.Needs.Database {
			holders[p.urlFile(s, role)] = append(holders[p.urlFile(s, role)], c.Name)
		}
		for _, key := range c.Needs.Keys {
			holders[p.keyFile(s, key)] = append(holders[p.keyFile(s, key)], c.Name)
		}
		for _, store := range slices.Concat(c.Needs.Stores, c.Needs.ReadsStores) {
			holders[p.store(s, store)] = append(holders[p.store(s, store)], c.Name)
		}
		if c.Needs.IssuingAuthority {
			holders[p.issuingAuthority(s, c)] = []string{c.Name}
		}
		holders[p.dir(s, "components", c.Name, "certificate", "workload.pem")] = []string{c.Name}
		holders[p.dir(s, "components", c.Name, "state")] = []string{c.Name}
	}
	for key := range s.Blueprint.Keys {
		if _, known := holders[p.keyFile(s, key)]; !known {
			holders[p.keyFile(s, key)] = nil
		}
	}
	// The provisioner's alone.
	for _, file := range []string{p.urlFile(s, ownerRole), p.pki(s, "root.pem"), p.pki(s, "issuing.pem"), p.firstAdminFile(s)} {
		holders[file] = nil
	}
	if p.hasOwnServer(s) {
		// The superuser's password is the provisioner's, and the data are nobody's but the server's.
		if dir, err := p.ownServerDir(s); err == nil {
			holders[filepath.Join(dir, "superuser.password")], holders[filepath.Join(dir, "data")] = nil, nil
		}
	}
	return p.list(holders)
}

// planeFiles are the plane's own, which no set may open.
func (p *Platform) planeFiles() []isolation.File {
	holders := map[string][]string{}
	for _, f := range p.files(p.Own) {
		holders[f.Path] = nil
	}
	for _, file := range []string{p.home("plane.json"), p.served("pki", workload.Operator, "workload.pem"), p.frontFile("key.pem"), p.home("web", "ca-key.pem"), p.home("profiles")} {
		holders[file] = nil
	}
	return p.list(holders)
}

// list is the files that are there, by what they are below the plane's home, or where what processes read lies outside of it.
func (p *Platform) list(holders map[string][]string) []isolation.File {
	var out []isolation.File
	for _, path := range slices.Sorted(maps.Keys(holders)) {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		what := path
		for _, root := range []string{p.home(), p.served()} {
			if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
				what = rel
			}
		}
		out = append(out, isolation.File{Path: path, What: what, Holders: holders[path]})
	}
	return out
}

// userOf is whom a process runs as, by what Linux says of it; nil where it says nothing.
func userOf(pid int) *isolation.User {
	if pid == 0 {
		return nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	// The fourth id of a line is the one that files are opened with (proc(5)).
	const fileSystemID = 3
	u := &isolation.User{UID: -1, GID: -1}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		var ids []int
		for _, field := range strings.Fields(rest) {
			if n, err := strconv.Atoi(field); err == nil {
				ids = append(ids, n)
			}
		}
		switch {
		case name == "Uid" && len(ids) > fileSystemID:
			u.UID = ids[fileSystemID]
		case name == "Gid" && len(ids) > fileSystemID:
			u.GID = ids[fileSystemID]
		case name == "Groups":
			u.Groups = ids
		}
	}
	if u.UID < 0 || u.GID < 0 {
		return nil
	}
	return u
}

// ProofKey is the key that reports are signed with, and ProofVerifier what they are verified with.
func (p *Platform) ProofKey() (string, error) {
	name, err := p.ownKey(blueprint.KeyProof)
	if err != nil {
		return "", err
	}
	key, err := p.secretFile(p.keyFile(p.Own, name))
	return key.Reveal(), err
}

// ProofVerifier is the public half of ProofKey.
func (p *Platform) ProofVerifier() (string, error) {
	name, err := p.ownKey(blueprint.KeyProof)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(p.publicFile(p.Own, name))
	if err != nil {
		return "", fmt.Errorf("read the key that reports are verified with: %w: name it with --key", err)
	}
	return strings.TrimSpace(string(text)), nil
}
