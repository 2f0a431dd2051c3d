package local

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/pg"
	"a3os.app/libs/queue"
	"a3os.app/libs/secret"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/tlog"
	"a3os.app/tools/fleet/internal/platform"
)

// RootKey is what the root of a set's authority is called among its keys.
const RootKey = "root"

// GoneKey is a key of a set that was made once and of which a file is gone.
type GoneKey struct {
	// Name in the blueprint, or RootKey.
	Name string
	// Kind of it; empty of the root.
	Kind blueprint.KeyKind
	// Half says that the secret half is there: the public one is made of it, and nothing is lost.
	Half bool
	// Made says that it was made anew already, by a command that was cut off before it had ended what was under the former one.
	Made bool
}

// GoneKeys are the keys whose files [Platform.KeysGone] names.
func (p *Platform) GoneKeys(s platform.Set) []GoneKey {
	gone := func(name, file string) bool {
		_, err := p.thereOrNever(s, name, file)
		return errors.Is(err, ErrKeyGone)
	}
	var out []GoneKey
	for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Keys)) {
		k := s.Blueprint.Keys[name]
		switch {
		case gone(name, p.keyFile(s, name)):
			out = append(out, GoneKey{Name: name, Kind: k.Kind})
		case k.Kind.HasPublicHalf() && gone(name, p.publicFile(s, name)):
			out = append(out, GoneKey{Name: name, Kind: k.Kind, Half: true})
		}
	}
	if gone(rootKey, p.pki(s, "root.pem")) {
		out = append(out, GoneKey{Name: RootKey})
	}
	return out
}

// MakeAnew makes another key in the place of one that is gone. What others keep of the former one is theirs to see to. Of keys that are trusted beside others the public half of the
// former one stays trusted where it is there: what it signed is as good as it was.
func (p *Platform) MakeAnew(s platform.Set, gone GoneKey) error {
	if gone.Name == RootKey {
		return p.newRoot(s)
	}
	k := s.Blueprint.Keys[gone.Name]
	if gone.Half {
		private, err := p.secretFile(p.keyFile(s, gone.Name))
		if err != nil {
			return err
		}
		public, err := publicHalf(k.Kind, private)
		if err != nil {
			return fmt.Errorf("make the public half of key %s: %w", gone.Name, err)
		}
		return writeFile(p.publicFile(s, gone.Name), public)
	}
	if k.Kind == blueprint.KeyManifest {
		// What is sealed to the former recovery key would be opened by a file that doesn't believe the manifests of from now on.
		if err := os.Remove(p.RecoveryPublic()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	private, public, err := p.newKey(s, k)
	if err != nil {
		return err
	}
	if public != "" {
		former, err := os.ReadFile(p.publicFile(s, gone.Name))
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err == nil && trustedTogether(k.Kind):
			public += "," + strings.TrimSpace(string(former))
		}
		if err := writeFile(p.publicFile(s, gone.Name), public); err != nil {
			return err
		}
	}
	if err := writeFile(p.keyFile(s, gone.Name), private); err != nil {
		return err
	}
	return p.State.SetKeysMade(s.Name(), true, gone.Name)
}

// trustedTogether are the kinds of keys whose public halves are a list.
func trustedTogether(k blueprint.KeyKind) bool {
	return k == blueprint.KeyRelease || k == blueprint.KeyLicence || k == blueprint.KeyEnvelope
}

// publicHalf is the one that newKey answered with the other.
func publicHalf(kind blueprint.KeyKind, private config.Secret) (string, error) {
	switch kind {
	case blueprint.KeyEnvelope:
		key, err := queue.ParseSigningKey(private)
		return key.Public().String(), err
	case blueprint.KeySealing:
		opener, err := secret.NewOpener(private)
		if err != nil {
			return "", err
		}
		return opener.PublicKey(), nil
	case blueprint.KeySnapshot:
		key, err := snapshot.ParsePrivateKey(private.Reveal())
		if err != nil {
			return "", err
		}
		public, ok := key.Public().(ed25519.PublicKey)
		if !ok {
			return "", errors.New("it has no Ed25519 public half")
		}
		return snapshot.FormatPublicKey(public), nil
	default:
		signer, err := tlog.NewSigner(private.Reveal())
		if err != nil {
			return "", errors.New("it is no signed-note key")
		}
		return signer.Verifier().String(), nil
	}
}

// newRoot makes another root, and has everything made anew that the former one vouched for.
func (p *Platform) newRoot(s platform.Set) error {
	vouched := []string{p.pki(s, "issuing.pem")}
	for _, c := range s.Blueprint.Components {
		vouched = append(vouched, p.issuingAuthority(s, c), filepath.Join(p.dir(s, "components", c.Name, "certificate"), "workload.pem"))
	}
	if s.Tenant.IsZero() {
		names, err := p.operatorNames()
		if err != nil {
			return err
		}
		for _, name := range names {
			vouched = append(vouched, filepath.Join(p.served("pki", operatorService(name)), "workload.pem"))
		}
	}
	for _, file := range vouched {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := p.State.ForgetKeys(s.Name(), rootKey); err != nil {
		return err
	}
	_, err := p.Authorities(s)
	return err
}

// SealsApart says that what is sealed with a key is kept where it can't be taken out from here.
func (p *Platform) SealsApart(s platform.Set, k blueprint.KeyKind) bool {
	return k == blueprint.KeySealing && p.storesElsewhere(s) != nil
}

// EndWith ends in a tenant's set, which is stopped, what can't go on under other keys than those that are gone: credentials that were sealed with one of them, and what was given out, as after a
// restore. The set's own program puts it on the tenant's record, as of now, and by whom and why. Done again it does the same again.
func (p *Platform) EndWith(ctx context.Context, s platform.Set, with platform.Release, keys []GoneKey, actor, reason string) (err error) {
	if s.Blueprint.Database == nil {
		return nil
	}
	rest, err := p.awake(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rest()) }()
	if there, err := p.HasDatabase(ctx, s); err != nil || !there {
		return err
	}
	if _, err := p.Mark(ctx, s); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.storesHere(s))) {
		store := s.Blueprint.Stores[name]
		if slices.ContainsFunc(keys, func(k GoneKey) bool { return !k.Half && k.Name == store.Key }) {
			if err := p.emptyStore(ctx, s, name, store); err != nil {
				return fmt.Errorf("empty store %s: %w", name, err)
			}
		}
	}
	if s.Blueprint.Backup == nil || len(s.Blueprint.Backup.Restored.Command) == 0 {
		return nil
	}
	restore := &blueprint.Restore{Backup: "none", TakenAt: p.Now().UTC().Format(time.RFC3339Nano), Actor: actor, Reason: reason}
	if restore.Checkpoint, err = p.newestCheckpoint(ctx, s); err != nil {
		return fmt.Errorf("read the newest checkpoint: %w", err)
	}
	return p.endGivenOut(ctx, s, with, restore, logins{})
}

// newestCheckpoint is that of the log of a set that is stopped; empty where there is none.
func (p *Platform) newestCheckpoint(ctx context.Context, s platform.Set) (note string, err error) {
	query := s.Blueprint.Backup.Checkpoint
	if query == "" {
		return "", nil
	}
	url, done, err := p.reader(ctx, s)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	conn, err := pg.Connect(ctx, url.Reveal())
	if err != nil {
		return "", errors.New("connect as who reads the database") // the driver repeats the password
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, query).Scan(&note); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", err
	}
	return note, nil
}

// emptyStore takes out of a store of secrets what nobody can open any more: a backup is whole where each of its credentials opens.
func (p *Platform) emptyStore(ctx context.Context, s platform.Set, name string, store blueprint.Store) error {
	if store.Emptied != "" {
		err := p.asOwnerOfAll(ctx, s, func(conn *pgx.Conn) error { _, err := conn.Exec(ctx, store.Emptied); return err })
		if err != nil {
			return err
		}
	}
	// The directory is a component's own, who may put links into it.
	root, err := os.OpenRoot(p.store(s, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if _, is := secret.PathOf(file); !is {
			return nil
		}
		return root.Remove(file)
	})
}

// asOwner works on a set's database as its owner. What a tenant has in its database is run by no superuser.
func (p *Platform) asOwner(ctx context.Context, s platform.Set, do func(*pgx.Conn) error) error {
	url, err := p.secretFile(p.urlFile(s, ownerRole))
	if err != nil {
		return err
	}
	return asWhomOwns(ctx, config.NewSecret(strings.TrimSpace(url.Reveal())), do)
}

// asWhomOwns works on a database as the owner whose connection string it is given.
func asWhomOwns(ctx context.Context, url config.Secret, do func(*pgx.Conn) error) error {
	conn, err := pg.Connect(ctx, url.Reveal())
	if err != nil {
		return errors.New("connect to the database as its owner") // the driver repeats the password
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// asOwnerOfAll is asOwner for who has to see every row meanwhile, which is a superuser's to allow. Where this is killed, the owner's right is taken back
// with the next look at the set's roles, which don't say any more that they are as they should be.
func (p *Platform) asOwnerOfAll(ctx context.Context, s platform.Set, do func(*pgx.Conn) error) (err error) {
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	owner := quoted(realRole(s, ownerRole))
	defer func() {
		ctx := context.WithoutCancel(ctx)
		_, back := admin.Exec(ctx, "ALTER ROLE "+owner+" NOBYPASSRLS")
		err = errors.Join(err, back, admin.Close(ctx))
	}()
	if err := batch(ctx, admin, "COMMENT ON ROLE "+owner+" IS NULL", "ALTER ROLE "+owner+" BYPASSRLS"); err != nil {
		return err
	}
	return p.asOwner(ctx, s, do)
}
