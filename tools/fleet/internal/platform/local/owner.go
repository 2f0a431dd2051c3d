package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

const (
	// walkable is the mode of a directory that others walk through to what is theirs, without seeing what else there is.
	walkable = 0o711
	// migrator is who runs a set's migrations: nobody else may read the owner's connection string.
	migrator = "migrate"
)

// Separated says whether every process of a set runs as a user of its own.
func (p *Platform) Separated() bool {
	if p.delegated {
		return p.separated
	}
	return accounts.Possible() == ""
}

// user is whom a component of a set runs as, chosen once; nil where this platform can't keep users apart. The groups are those of
// the stores that the component shares.
func (p *Platform) user(ctx context.Context, s platform.Set, component string) (*supervise.User, error) {
	if !p.Separated() {
		return nil, nil //nolint:nilnil // no user is a user: this process's own
	}
	if err := p.settleUsers(ctx, s); err != nil {
		return nil, err
	}
	id, err := p.account(ctx, unitName(s, component))
	if err != nil {
		return nil, err
	}
	user := &supervise.User{UID: id, GID: id}
	c, _ := s.Blueprint.Component(component)
	for _, store := range slices.Concat(c.Needs.Stores, c.Needs.ReadsStores) {
		group, err := p.account(ctx, storeGroup(s, store))
		if err != nil {
			return nil, err
		}
		user.Groups = append(user.Groups, group)
	}
	return user, nil
}

// templateUser is whom a template is migrated as: no user of any set.
func (p *Platform) templateUser(ctx context.Context) (*supervise.User, error) {
	if !p.Separated() {
		return nil, nil //nolint:nilnil // no user is a user: this process's own
	}
	id, err := p.account(ctx, templateMigrator)
	return &supervise.User{UID: id, GID: id}, err
}

func storeGroup(s platform.Set, store string) string { return s.Name() + "/stores/" + store }

func (p *Platform) account(ctx context.Context, name string) (uint32, error) {
	return p.State.Account(name, pickAccounts(ctx))
}

func pickAccounts(ctx context.Context) state.Picker {
	return func(near, before uint32, n int) ([]uint32, error) { return accounts.Pick(ctx, near, before, n) }
}

// settleUsers chooses all users and groups of a set at once: one by one, the machine would be looked through for each.
func (p *Platform) settleUsers(ctx context.Context, s platform.Set) error {
	if !p.Separated() || p.delegated {
		return nil
	}
	names := []string{unitName(s, migrator)}
	for _, c := range s.Blueprint.Components {
		names = append(names, unitName(s, c.Name))
	}
	for _, store := range slices.Sorted(maps.Keys(s.Blueprint.Stores)) {
		names = append(names, storeGroup(s, store))
	}
	if p.keepsMachineReader(s) {
		names = append(names, unitName(s, machineReader))
	}
	return p.State.ChooseAccounts(names, pickAccounts(ctx))
}

// Settle decides where what processes read lies: in the home, or, where users of their own could not get there, beside PostgreSQL's
// data (see pgserver.DirForOthers). What an earlier release made elsewhere is moved there. Nothing of the plane runs.
func (p *Platform) Settle(ctx context.Context) error {
	if !p.Separated() {
		if len(p.State.Accounts()) > 0 {
			return fmt.Errorf("the processes of the plane in %s have users of their own and %s: work as the user who made it", p.Settings.Home, accounts.Possible())
		}
		return nil
	}
	if p.State.Served == "" && len(p.State.Accounts()) == 0 {
		if dir := ServedDir(p.Settings.Home); dir != p.Settings.Home {
			p.State.Served = dir
			if err := p.State.Save(); err != nil {
				return err
			}
		}
	}
	if p.State.Served != "" {
		if err := p.move(ctx); err != nil {
			return err
		}
	}
	return p.ownDirs(p.served(), p.served("tenants"), p.served("plane"), p.served("web"), p.served("pki"))
}

// ServedDir is where what processes with users of their own read can lie for a home: the home itself where everybody can walk there.
func ServedDir(home string) string {
	wish := filepath.Join(home, "sets")
	if dir := pgserver.DirForOthers(wish); dir != wish {
		return dir
	}
	return home
}

// move takes what lies in the home to where it is served from.
func (p *Platform) move(ctx context.Context) error {
	if err := os.MkdirAll(p.served(), walkable); err != nil {
		return fmt.Errorf("make the directory that processes read: %w", err)
	}
	for _, name := range []string{"tenants", "plane", "pki", "releases"} {
		from, to := p.home(name), p.served(name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := moveTree(ctx, from, to); err != nil {
			return fmt.Errorf("move %s to where the processes can read it: %w", from, err)
		}
	}
	return nil
}

func moveTree(ctx context.Context, from, to string) error {
	err := os.Rename(from, to)
	if err == nil || !errors.Is(err, syscall.EXDEV) {
		return err
	}
	part := to + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--", from, part).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return os.RemoveAll(from)
}

// HandOver gives each file of a set to the one process that needs it, and each directory above to root: mode 0711, so that nobody sees
// what else there is. What is in order stays untouched, and a tree that a process owns already is never walked: what is in it is that
// process's doing.
func (p *Platform) HandOver(ctx context.Context, s platform.Set) error {
	if p.delegated {
		// It was done before by who may give files to others.
		return nil
	}
	if !p.Separated() {
		for _, c := range s.Blueprint.Components {
			if err := os.MkdirAll(p.stateDir(s, c.Name), 0o700); err != nil {
				return err
			}
		}
		return nil
	}
	dirs := []string{p.dir(s), p.dir(s, "pki"), p.dir(s, "components"), p.dir(s, "keys"), p.dir(s, "database"), p.dir(s, "stores")}
	errs := []error{p.ownDirs(dirs...), chmod(p.pki(s, "roots.pem"), 0o644)}
	if s.Blueprint.Database != nil {
		user, err := p.user(ctx, s, migrator)
		if err != nil {
			return err
		}
		errs = append(errs, give(p.urlFile(s, ownerRole), user))
	}
	for _, c := range s.Blueprint.Components {
		errs = append(errs, p.ownComponent(ctx, s, c))
	}
	return errors.Join(errs...)
}

// ownComponent gives a component what its needs name.
func (p *Platform) ownComponent(ctx context.Context, s platform.Set, c blueprint.Component) error {
	user, err := p.user(ctx, s, c.Name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.stateDir(s, c.Name), 0o700); err != nil {
		return err
	}
	// Its directory is its to look into, and root's to change: nothing in it can be exchanged for a link that root then writes through.
	dir := p.dir(s, "components", c.Name)
	errs := []error{give(dir, &supervise.User{GID: user.GID}), chmod(dir, 0o750), giveTree(p.dir(s, "components", c.Name, "certificate"), user, 0o700, 0o600)}
	for _, role := range c.Needs.Database {
		errs = append(errs, give(p.urlFile(s, role), user))
	}
	for _, key := range c.Needs.Keys {
		errs = append(errs, give(p.keyFile(s, key), user))
	}
	if c.Needs.IssuingAuthority {
		errs = append(errs, give(p.issuingAuthority(s, c), user))
	}
	if c.Needs.Licence {
		errs = append(errs, p.ownLicence(s, c, user))
	}
	if c.Needs.FrontDoor {
		front := p.frontOf()
		errs = append(errs, give(front.Key, user), give(front.Certificate, user))
	}
	return errors.Join(append(errs, p.ownData(ctx, s, c, user))...)
}

// ownData gives a component its own directory, and the stores that it writes.
func (p *Platform) ownData(ctx context.Context, s platform.Set, c blueprint.Component, user *supervise.User) error {
	if err := os.MkdirAll(p.stateDir(s, c.Name), 0o700); err != nil {
		return err
	}
	errs := []error{giveTree(p.stateDir(s, c.Name), user, 0o700, 0o600)}
	here := p.storesHere(s)
	for _, store := range c.Needs.Stores {
		if _, is := here[store]; !is {
			continue
		}
		group, err := p.account(ctx, storeGroup(s, store))
		if err != nil {
			return err
		}
		// The group's bit on directories has what is made in them belong to the group (see libs/internal/tenantdir).
		errs = append(errs, giveTree(p.store(s, store), &supervise.User{UID: user.UID, GID: group}, fs.ModeSetgid|0o750, 0o640))
	}
	return errors.Join(errs...)
}

func (p *Platform) stateDir(s platform.Set, component string) string {
	return p.dir(s, "components", component, "state")
}

// ownDirs makes directories root's own and walkable for everybody; those that aren't there are made.
func (p *Platform) ownDirs(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		err := os.MkdirAll(dir, walkable)
		if err == nil && dir != p.Settings.Home {
			// The home's own mode decided where PostgreSQL's data lie; it stays.
			err = chmod(dir, walkable)
		}
		errs = append(errs, err, take(dir))
	}
	return errors.Join(errs...)
}

// take makes a directory root's own.
func take(path string) error { return give(path, &supervise.User{}) }

// give makes a path the user's own, itself and not what a link leads to.
func give(path string, user *supervise.User) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == user.UID && st.Gid == user.GID {
		return nil
	}
	return os.Lchown(path, int(user.UID), int(user.GID))
}

func chmod(path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a link: the plane makes none, take it away", path)
	}
	const settable = fs.ModePerm | fs.ModeSetgid
	if info.Mode()&settable == mode {
		return nil
	}
	return os.Chmod(path, mode)
}

// giveTree makes a tree the user's own, its root last: a tree whose root is the user's was given whole, and is not looked into again,
// for who owns it may have put anything there meanwhile. The group says nothing of that: an owner may change it.
func giveTree(root string, user *supervise.User, dirMode, fileMode fs.FileMode) error {
	info, err := os.Lstat(root)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == user.UID {
		return errors.Join(give(root, user), chmod(root, dirMode))
	}
	var paths []string
	modes := map[string]fs.FileMode{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		paths = append(paths, path)
		switch {
		case d.IsDir():
			modes[path] = dirMode
		case d.Type().IsRegular():
			modes[path] = fileMode
		default:
			return fmt.Errorf("%s is neither file nor directory: the plane makes no such thing, take it away", path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(paths)
	for _, path := range paths {
		// The mode second: a change of owner takes the group's bit away.
		if err := errors.Join(os.Lchown(path, int(user.UID), int(user.GID)), chmod(path, modes[path])); err != nil {
			return err
		}
	}
	return nil
}

// keepOwner gives a file that root writes the owner of the file that it replaces, or else the owner of its directory.
func keepOwner(file *os.File, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, like := range []string{path, filepath.Dir(path)} {
		if info, err := os.Lstat(like); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return file.Chown(int(st.Uid), int(st.Gid))
			}
		}
	}
	return nil
}
