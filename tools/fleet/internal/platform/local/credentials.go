package local

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/fault"
	"a3os.app/libs/licence"
	"a3os.app/libs/queue"
	"a3os.app/libs/release"
	"a3os.app/libs/secret"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/tlog"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// KeysAndStores makes what a set never had of its keys and stores. A key that was made and is gone is not made again: the error is [ErrKeyGone].
func (p *Platform) KeysAndStores(s platform.Set) (changed bool, err error) {
	names := slices.Sorted(maps.Keys(s.Blueprint.Keys))
	for _, name := range names {
		did, err := p.key(s, name, s.Blueprint.Keys[name])
		if err != nil {
			return changed, fmt.Errorf("make key %s: %w", name, err)
		}
		changed = changed || did
	}
	if err := p.State.SetKeysMade(s.Name(), !changed, names...); err != nil {
		return changed, err
	}
	stores := p.storesHere(s)
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		did, err := p.makeStore(s, name, stores[name])
		if err != nil {
			return changed, fmt.Errorf("make store %s: %w", name, err)
		}
		changed = changed || did
	}
	return changed, nil
}

// makeStore makes a store and puts the set's mark on it.
func (p *Platform) makeStore(s platform.Set, name string, store blueprint.Store) (changed bool, err error) {
	signer, err := p.signer()
	if err != nil {
		return false, err
	}
	dir := p.store(s, name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return false, err
	}
	if store.Kind == blueprint.StoreBlob {
		return blob.CreateLocal(dir, signer, s.Tenant)
	}
	public, err := p.StoreKey(s, store)
	if err != nil {
		return false, err
	}
	return secret.CreateLocal(dir, signer, s.Tenant, public)
}

func (p *Platform) store(s platform.Set, name string) string { return p.dir(s, "stores", name) }

func (p *Platform) keyFile(s platform.Set, name string) string {
	return p.dir(s, "keys", name+".secret")
}
func (p *Platform) publicFile(s platform.Set, name string) string {
	return p.dir(s, "keys", name+".public")
}

// ErrKeyGone is of a key that was made once and whose file is gone. Another one would open nothing that this one sealed, and nobody would notice
// before they need it.
var ErrKeyGone = errors.New("it was made, and is gone")

// thereOrNever looks for the file of a key, and refuses where it was there once.
func (p *Platform) thereOrNever(s platform.Set, name, file string) (there bool, err error) {
	switch _, err := os.Stat(file); {
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case p.State.KeyMade(s.Name(), name):
		called := name
		if name == rootKey {
			called = RootKey
		}
		return false, fmt.Errorf("%[1]w: put %[2]s back, from a copy of the plane's files or with fleet backup put-back-keys --from BACKUP --to %[3]s; without either, fleet backup new-key %[3]s --key %[4]s says what is lost with it: docs/operations.md#a-key-is-gone",
			ErrKeyGone, file, cmp.Or(s.Slug, s.Name()), called)
	}
	return false, nil
}

// rootKey is what is remembered of the root of a set's authority.
const rootKey = "pki/root.pem"

// KeysGone are the files of a set's keys that were made once and are gone, public halves among them.
func (p *Platform) KeysGone(s platform.Set) []string {
	var out []string
	look := func(name, file string) {
		if _, err := p.thereOrNever(s, name, file); errors.Is(err, ErrKeyGone) {
			out = append(out, file)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Keys)) {
		look(name, p.keyFile(s, name))
		if s.Blueprint.Keys[name].Kind.HasPublicHalf() {
			look(name, p.publicFile(s, name))
		}
	}
	look(rootKey, p.pki(s, "root.pem"))
	return out
}

// PutBackKeys puts the files of keys back that are gone, from a backup that was unlocked with key, and answers which. It touches nothing that is there.
func (p *Platform) PutBackKeys(ctx context.Context, s platform.Set, b *backup.Backup, key backup.Key) (files []string, err error) {
	dir, done, err := p.scratch(s.Name())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := errors.Join(b.Check(ctx), unpack(ctx, b, partFiles, dir)); err != nil {
		return nil, err
	}
	put := func(to, text string) error {
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		files = append(files, to)
		return writeFile(to, text)
	}
	kept := p.kept(s)
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		if !strings.HasPrefix(name, "keys/") && name != rootKey {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a key without a public half, or one of a later release
		}
		if err == nil {
			err = put(kept[name], string(text))
		}
		if err != nil {
			return files, fmt.Errorf("put %s back: %w", name, err)
		}
	}
	file := p.keyFile(s, s.Blueprint.Backup.Key)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		// It may be an older one than the last that was there.
		if err := p.setEscrowsAside(s); err != nil {
			return files, err
		}
	}
	return files, put(file, strings.TrimSpace(key.Text().Reveal()))
}

// setEscrowsAside keeps the sealed copies of a set's backup key wherever its backups are: the next backup lays that of another key there, which may be the same.
func (p *Platform) setEscrowsAside(s platform.Set) error {
	stores, err := p.everyBackupPlace()
	if err != nil {
		return err
	}
	for _, store := range stores {
		if _, err := os.Stat(filepath.Join(store.Dir, s.Name())); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		unlock, err := store.Lock(s.Name())
		if err != nil {
			return err
		}
		err = store.SetEscrowAside(s.Name(), p.Now())
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// NewBackupKey makes another backup key for a set whose own is gone for good. The sealed copy of that one stays beside its backups.
func (p *Platform) NewBackupKey(s platform.Set) error {
	name := s.Blueprint.Backup.Key
	if _, err := p.thereOrNever(s, name, p.keyFile(s, name)); !errors.Is(err, ErrKeyGone) {
		return errors.Join(err, fault.New(fault.FailedPrecondition, "the backup key of %s is there: nothing was changed", cmp.Or(s.Slug, s.Name())))
	}
	if err := p.setEscrowsAside(s); err != nil {
		return err
	}
	if err := p.State.ForgetKeys(s.Name(), name); err != nil {
		return err
	}
	_, err := p.key(s, name, s.Blueprint.Keys[name])
	return errors.Join(err, p.State.SetKeysMade(s.Name(), true, name))
}

// key makes a key once. The public half is written first: where the secret one is, both are.
func (p *Platform) key(s platform.Set, name string, k blueprint.Key) (changed bool, err error) {
	there, err := p.thereOrNever(s, name, p.keyFile(s, name))
	if err == nil && there && k.Kind.HasPublicHalf() {
		_, err = p.thereOrNever(s, name, p.publicFile(s, name))
	}
	if there || err != nil {
		return false, err
	}
	private, public, err := p.newKey(s, k)
	if err != nil {
		return false, err
	}
	if public != "" {
		if err := writeFile(p.publicFile(s, name), public); err != nil {
			return false, err
		}
	}
	return true, writeFile(p.keyFile(s, name), private)
}

func (p *Platform) newKey(s platform.Set, k blueprint.Key) (private, public string, err error) {
	switch k.Kind {
	case blueprint.KeyRandom, blueprint.KeyBackup:
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			return "", "", err
		}
		return base64.StdEncoding.EncodeToString(raw), "", nil
	case blueprint.KeyEnvelope:
		key, err := queue.NewSigningKey()
		return key.Secret().Reveal(), key.Public().String(), err
	case blueprint.KeySealing:
		keys, err := secret.NewKeys()
		return keys.Private.Reveal(), keys.Public, err
	case blueprint.KeyNote:
		name, err := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String()}.Text(k.Name)
		if err != nil {
			return "", "", err
		}
		return tlog.NewKey(name)
	case blueprint.KeyMark:
		private, public, err := binding.NewKey(p.State.Plane)
		return private.Reveal(), public, err
	case blueprint.KeyLicence:
		return licence.NewKey(p.State.Plane)
	case blueprint.KeyProof:
		return isolation.NewKey(p.State.Plane)
	case blueprint.KeyRelease:
		return release.NewKey(p.State.Plane)
	case blueprint.KeyManifest:
		return backup.NewManifestKey(p.State.Plane)
	case blueprint.KeySnapshot:
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return "", "", err
		}
		private, err = snapshot.FormatPrivateKey(priv)
		return private, snapshot.FormatPublicKey(pub), err
	default:
		return "", "", fmt.Errorf("this platform can't make a key of kind %q", k.Kind)
	}
}

// credentials adds to a component's facts what it may hold.
func (p *Platform) credentials(f *blueprint.Facts, s platform.Set, c blueprint.Component) error {
	for _, role := range c.Needs.Database {
		f.DatabaseURLs[role] = p.urlFile(s, role)
	}
	for _, key := range c.Needs.Keys {
		f.KeyFiles[key] = p.keyFile(s, key)
	}
	for _, key := range c.Needs.PublicKeys {
		text, err := os.ReadFile(p.publicFile(s, key))
		if err != nil {
			return fmt.Errorf("read the public half of key %s: %w", key, err)
		}
		f.PublicKeys[key] = strings.TrimSpace(string(text))
	}
	for _, store := range slices.Concat(c.Needs.Stores, c.Needs.ReadsStores) {
		f.StoreDirs[store] = p.store(s, store)
	}
	if c.Needs.IssuingAuthority {
		f.Authority = p.issuingAuthority(s, c)
	}
	if c.Needs.Licence {
		f.LicencePath = p.licenceFile(s, c)
	}
	if c.Needs.FrontDoor {
		f.Front = p.frontOf()
		f.Front.Socket = strconv.Itoa(supervise.ListensFD)
	}
	if c.Needs.FirstAdmin {
		admin, err := p.FirstAdmin(s)
		if err != nil {
			return err
		}
		f.FirstAdmin = &blueprint.FirstAdmin{Email: admin.Email, CodeHash: admin.CodeHash}
	}
	return nil
}

// FirstAdmin is how a tenant's first admin gets in.
type FirstAdmin struct {
	// Email of the admin.
	Email string `json:"email"`
	// Code that is redeemed once; empty when it was.
	Code string `json:"code"`
	// CodeHash is its SHA-256 in hex.
	CodeHash string `json:"code_hash"`
}

func (p *Platform) firstAdminFile(s platform.Set) string { return p.dir(s, "first-admin.json") }

// FirstAdmin reads it; the zero FirstAdmin where none was named.
func (p *Platform) FirstAdmin(s platform.Set) (FirstAdmin, error) {
	var a FirstAdmin
	text, err := os.ReadFile(p.firstAdminFile(s))
	if errors.Is(err, os.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("read who the first admin is: %w", err)
	}
	return a, json.Unmarshal(text, &a)
}

// PutFirstAdmin writes it.
func (p *Platform) PutFirstAdmin(s platform.Set, a FirstAdmin) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return writeFile(p.firstAdminFile(s), string(text))
}

// refusedExit is how a program that an operator runs says that it may not do what it was asked.
const refusedExit = 3

// RecoverAdmin lets a tenant's admin redeem a setup code, with the set's own program and credentials.
func (p *Platform) RecoverAdmin(ctx context.Context, s platform.Set, recovery blueprint.Recovery) error {
	program := s.Blueprint.RecoverAdmin
	if len(program.Command) == 0 {
		return NoWayBack(s)
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), DatabaseURLs: map[string]string{}, Recovery: &recovery}
	var err error
	if facts.MarkKeys, err = p.markKeys(); err != nil {
		return err
	}
	running, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return fmt.Errorf("find what the set of %s runs: %w", s.Slug, err)
	}
	as := migrator
	for _, role := range program.Database {
		facts.DatabaseURLs[role] = p.urlFile(s, role)
		// The role's connection string is its component's own to read.
		as = holder(s.Blueprint, role)
	}
	env, err := facts.Environ(program.Env)
	if err != nil {
		return err
	}
	const most = time.Minute
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	said, err := p.once(ctx, s, running, as, program.Command, env)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == refusedExit {
		_, why, _ := strings.Cut(said, ": ")
		return fault.New(fault.FailedPrecondition, "%s was not let in: %s", recovery.Email, why)
	}
	if err != nil {
		return fmt.Errorf("let %s in again: %w: %s", recovery.Email, err, said)
	}
	return nil
}

// NoWayBack is that a blueprint has no program that lets an admin in again.
func NoWayBack(s platform.Set) error {
	return fault.New(fault.Unimplemented, "the blueprint %s has no way to let an admin in again", s.Blueprint.Name)
}

// NotLetIn is that the program refused to, with the line that it ended with.
func NotLetIn(r blueprint.Recovery, said string) error {
	_, why, _ := strings.Cut(said, ": ")
	return fault.New(fault.FailedPrecondition, "%s was not let in: %s", r.Email, why)
}

// writeFile writes a file that is its owner's alone, whole or not at all. One that is written anew stays whose it was.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = file.Cleanup() }()
	// Before it is in its place: whoever reads it may do so at that moment.
	err = keepOwner(file.File, path)
	if err == nil {
		_, err = file.WriteString(text)
	}
	if err == nil {
		err = file.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
