package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// NewKeysRequest says which keys are made anew that are gone for good.
type NewKeysRequest struct {
	// Of is the tenant, by slug or id, or `plane`.
	Of string
	// Keys by their names; `root` is the root of the set's authority.
	Keys []string
	// AcceptLoss says that whoever asks knows what is lost.
	AcceptLoss bool
	// Actor who, and Reason why.
	Actor, Reason string
}

// NewKeys makes keys of a set anew that are gone, and answers what is to be done next, a line each. What the former ones sealed or signed is lost, as the refusal says where the loss wasn't accepted. A
// tenant's set is stopped, and stays so until it is repaired; the plane's own comes back with the next `up`.
func (p *Plane) NewKeys(ctx context.Context, r NewKeysRequest) (next []string, err error) {
	r.Reason = strings.TrimSpace(r.Reason)
	s, unlock, err := p.keyHolder(ctx, r.Of)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.platform.NotRestoring(s); err != nil {
		return nil, err
	}
	if !s.Tenant.IsZero() {
		if s, err = p.runningHolder(ctx, s); err != nil {
			return nil, err
		}
	}
	keys, err := p.goneFor(s, r.Keys)
	if err != nil {
		return nil, err
	}
	if err := p.mayBeMadeAnew(ctx, s, keys, r); err != nil {
		return nil, err
	}
	if s.Tenant.IsZero() {
		return p.newOwnKeys(ctx, s, keys, r)
	}
	return p.newTenantKeys(ctx, s, keys, r)
}

// runningHolder is a tenant's set whose keys are to be made anew, as it is started by its release.
func (p *Plane) runningHolder(ctx context.Context, s platform.Set) (platform.Set, error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return s, p.whyNot(err)
	}
	if gone := p.platform.KeysGone(p.own); len(gone) > 0 {
		return s, fault.New(fault.FailedPrecondition, "of the plane's own keys are gone as well: %s: they come first, docs/operations.md#a-key-is-gone", strings.Join(gone, ", "))
	}
	if err := p.open(ctx); err != nil {
		return s, err
	}
	s, err := p.started(ctx, s)
	if err == nil {
		s.Blueprint = mended(s.Blueprint, p.blueprint)
	}
	return s, err
}

// goneFor are the keys that were named, each of which has to be gone, or half made anew.
func (p *Plane) goneFor(s platform.Set, names []string) ([]local.GoneKey, error) {
	gone := p.platform.GoneKeys(s)
	var all []string
	for _, k := range gone {
		all = append(all, k.Name)
	}
	for _, begun := range p.state.Renewals(s.Name()) {
		if !s.Tenant.IsZero() && !slices.Contains(all, begun.Key) {
			all = append(all, begun.Key)
			gone = append(gone, local.GoneKey{Name: begun.Key, Kind: s.Blueprint.Keys[begun.Key].Kind, Made: true})
		}
	}
	of := cmp.Or(s.Slug, s.Name())
	var out []local.GoneKey
	for _, name := range names {
		i := slices.IndexFunc(gone, func(k local.GoneKey) bool { return k.Name == name })
		_, is := s.Blueprint.Keys[name]
		switch {
		case i >= 0:
			out = append(out, gone[i])
		case !is && name != local.RootKey:
			return nil, fault.New(fault.InvalidArgument, "%s has no key %q; gone are: %s", of, name, cmp.Or(strings.Join(all, ", "), "none"))
		default:
			return nil, fault.New(fault.FailedPrecondition, "the key %s of %s is there: nothing was changed; gone are: %s", name, of, cmp.Or(strings.Join(all, ", "), "none"))
		}
	}
	return out, nil
}

// mayBeMadeAnew refuses what can't be, and what whoever asks didn't say that they know.
func (p *Plane) mayBeMadeAnew(ctx context.Context, s platform.Set, keys []local.GoneKey, r NewKeysRequest) error {
	var lost []string
	for _, k := range keys {
		switch {
		case k.Half:
			continue
		case k.Kind == blueprint.KeyNote:
			return fault.New(fault.FailedPrecondition, "key %s signs the log of %s, and under another one it is another log, which its witness refuses: nothing was changed. What brings it back is a copy of its file or a backup that has it; without either fleet plan offboard --tenant %s --reason '…' hands the tenant its data, log among them, and ends it",
				k.Name, s.Slug, s.Slug)
		case p.platform.SealsApart(s, k.Kind):
			return fault.New(fault.FailedPrecondition, "what is sealed with key %s of %s is kept by the platform, apart from here, and would stay there unread: nothing was changed; put it back, or restore", k.Name, s.Slug)
		case k.Name == local.RootKey && s.Tenant.IsZero():
			if err := p.supervisor.Ping(ctx); !errors.Is(err, supervise.ErrNotRunning) {
				return fault.New(fault.FailedPrecondition, "what runs believes the former root alone: take the plane down first, fleet plane down")
			}
		}
		lost = append(lost, k.Name+": "+lostWith(s, k))
	}
	if len(lost) == 0 {
		return nil
	}
	if !r.AcceptLoss {
		return fault.New(fault.FailedPrecondition, "nothing was changed. With another key this is lost for good:\n  %s\nWhere no copy of the files and no backup has them, say so with --accept-loss and --reason", strings.Join(lost, "\n  "))
	}
	if n := utf8.RuneCountInString(r.Reason); n < shortestReason || n > longestReason {
		return fault.New(fault.InvalidArgument, "--reason has %d characters: say why in %d to %d, for the record", n, shortestReason, longestReason)
	}
	return nil
}

// lostWith says what is lost with a key, by its kind. What a product keeps under a random one, only that knows.
func lostWith(s platform.Set, k local.GoneKey) string {
	switch k.Kind {
	case blueprint.KeyNote:
		return "the log, which under another key is another one"
	case blueprint.KeySnapshot:
		return "nothing but the snapshot of routes that the gateway holds: until the registry answers it with another, it leads nowhere"
	case blueprint.KeyMark:
		return "the marks on databases, queues and stores: each is marked anew when its tenant is brought up or resumed"
	case blueprint.KeyProof:
		return "nothing; proofs of isolation are verified with the former public key on, by whoever has it"
	case blueprint.KeyRelease:
		return "where its public half is gone as well: every registered release that it signed isn't believed any more, and is registered again, by the same version"
	case blueprint.KeyLicence:
		return "where its public half is gone as well: every licence that it signed ends, and is issued anew"
	case blueprint.KeyManifest:
		return "backups of before are believed with the recovery key of before alone; with none they restore nothing"
	case blueprint.KeyBackup:
		return "backups of before open with the recovery key alone; with none they restore nothing"
	case blueprint.KeyEnvelope:
		return "where its public half is gone as well: work that waits in the queue is believed no more, and runs under way fail; and everybody has to sign in again"
	case blueprint.KeySealing:
		return "every credential that is stored: each has to be given again; and everybody has to sign in again"
	case blueprint.KeyRandom:
		return "what " + strings.Join(holders(s, k.Name), " and ") + " keeps under it, signing keys of sign-ins among them, or pages that somebody has begun to read; and everybody has to sign in again"
	}
	if s.Tenant.IsZero() {
		return "every certificate of the plane: operators with keys of their own get others, fleet operator add NAME --request FILE --reason '…'"
	}
	return "every certificate of the set, which are made anew; and everybody has to sign in again"
}

// holders are the components that hold a key.
func holders(s platform.Set, key string) []string {
	var out []string
	for _, c := range s.Blueprint.Components {
		if slices.Contains(c.Needs.Keys, key) {
			out = append(out, c.Name)
		}
	}
	return out
}

// renew makes the keys anew, and remembers those of which something is to be done or told still.
func (p *Plane) renew(s platform.Set, keys []local.GoneKey, reason string) error {
	for _, k := range keys {
		if !k.Half {
			if err := p.state.BeginRenewal(state.Renewal{Set: s.Name(), Key: k.Name, Reason: reason}); err != nil {
				return err
			}
		}
		if k.Made {
			continue
		}
		anew := p.platform.MakeAnew
		if k.Kind == blueprint.KeyBackup {
			anew = func(s platform.Set, _ local.GoneKey) error { return p.platform.NewBackupKey(s) }
		}
		if err := anew(s, k); err != nil {
			return fmt.Errorf("make key %s of %s anew: %w", k.Name, cmp.Or(s.Slug, s.Name()), err)
		}
	}
	return nil
}

// newOwnKeys makes keys of the plane's own anew. Whoever runs with a former one is stopped; the registry is told by the next `up`, which it may need them for.
func (p *Plane) newOwnKeys(ctx context.Context, s platform.Set, keys []local.GoneKey, r NewKeysRequest) ([]string, error) {
	held := slices.ContainsFunc(keys, func(k local.GoneKey) bool {
		return !k.Half && slices.ContainsFunc(s.Blueprint.Components, func(c blueprint.Component) bool { return slices.Contains(c.Needs.Keys, k.Name) })
	})
	if held && p.supervisor.Ping(ctx) == nil {
		err := p.open(ctx)
		if err == nil {
			_, err = p.carrier().StopHolders(ctx, s)
		}
		if err != nil {
			return nil, fmt.Errorf("stop who holds the former key: %w", err)
		}
	}
	if err := p.renew(s, keys, r.Reason); err != nil {
		return nil, err
	}
	next := []string{"fleet plane up"}
	for _, k := range keys {
		switch {
		case k.Half:
		case k.Kind == blueprint.KeyManifest:
			next = append(next, "fleet backup recovery-key FILE, for the one of before opens no backup that is made from now on")
		case k.Kind == blueprint.KeyRelease:
			next = append(next, "fleet release list; where tenants of a release are refused, fleet release register of it, by the version that it has, and fleet plane up once more")
		case k.Kind == blueprint.KeyLicence:
			next = append(next, "fleet status; where licences are refused or gone, fleet licence issue TENANT --plan PLAN --reason '…'")
		case k.Name == local.RootKey:
			next = append(next, "fleet operator list; for each whose key is their own, fleet operator add NAME --request FILE --reason '…'")
		}
	}
	return append(next, "fleet backup --all"), nil
}

// newTenantKeys makes keys of a tenant's set anew, and ends what was under the former ones. The set is stopped, and is brought up by whoever sees to it next.
func (p *Plane) newTenantKeys(ctx context.Context, s platform.Set, keys []local.GoneKey, r NewKeysRequest) ([]string, error) {
	sees := slices.DeleteFunc(slices.Clone(keys), func(k local.GoneKey) bool { return k.Half || k.Kind == blueprint.KeyBackup })
	next := []string{"fleet backup --tenant " + s.Slug}
	if len(sees) > 0 {
		if _, err := p.carrier().Stop(ctx, s); err != nil {
			return nil, err
		}
		next = []string{"fleet repair --tenant " + s.Slug, "fleet backup --tenant " + s.Slug}
	}
	if err := p.renew(s, keys, r.Reason); err != nil {
		return nil, err
	}
	if len(sees) > 0 {
		var names []string
		for _, k := range sees {
			names = append(names, k.Name)
		}
		reason := fmt.Sprintf("Made anew, for it was gone: key %s: ", strings.Join(names, ", "))
		reason += string([]rune(r.Reason)[:min(utf8.RuneCountInString(r.Reason), max(longestReason-utf8.RuneCountInString(reason), 0))])
		if err := p.platform.EndWith(ctx, s, p.runs(s), sees, r.Actor, reason); err != nil {
			return nil, fmt.Errorf("%s is stopped, and has its new keys; run this again: %w", s.Slug, err)
		}
	}
	return next, p.tellRenewed(ctx, s)
}

// tellRenewed has it on the registry's record which keys of a set were made anew: no backup of before has them.
func (p *Plane) tellRenewed(ctx context.Context, s platform.Set) error {
	for _, r := range p.state.Renewals(s.Name()) {
		if err := p.recordBackup(ctx, s, nil, fmt.Errorf("key %s was made anew, for it was gone, and no backup has it: %s", r.Key, r.Reason)); err != nil {
			return err
		}
		if err := p.state.FinishRenewal(r); err != nil {
			return err
		}
	}
	return nil
}

// openBelieved opens a backup that is held to the plane's own key, or, where that was made anew, by what a recovery key has of the former one.
func openBelieved(ctx context.Context, dir string, whose backup.Whose, recoveryFile string) (*backup.Backup, error) {
	b, err := backup.Open(ctx, dir, whose)
	if recoveryFile == "" || !errors.Is(err, backup.ErrRefused) {
		return b, err
	}
	recovery, rerr := recoveryIn(recoveryFile)
	if rerr != nil || recovery.ManifestKey == whose.ManifestKey || recovery.Plane != whose.Plane || recovery.PlaneID != whose.ID {
		return b, err
	}
	whose.ManifestKey = recovery.ManifestKey
	if former, ferr := backup.Open(ctx, dir, whose); ferr == nil {
		return former, nil
	}
	return b, err
}

// PutBackKeys puts the files of a set's keys back that are gone, from one of its backups, and answers which.
func (p *Plane) PutBackKeys(ctx context.Context, from, to, recoveryFile string) ([]string, error) {
	s, unlock, err := p.keyHolder(ctx, to)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, b, key, err := p.believe(ctx, s, RestoreRequest{From: from, To: to, RecoveryKey: recoveryFile})
	if err != nil {
		return nil, err
	}
	if b.Manifest.Set != s.Name() {
		return nil, fault.New(fault.FailedPrecondition, "%s is of %s: a set takes its own keys alone", b.Manifest.Name, cmp.Or(b.Manifest.Slug, b.Manifest.Set))
	}
	return p.platform.PutBackKeys(ctx, s, b, key)
}

// NewBackupKey makes another backup key for a set whose own is gone for good.
func (p *Plane) NewBackupKey(ctx context.Context, of string) error {
	s, unlock, err := p.keyHolder(ctx, of)
	if err != nil {
		return err
	}
	defer unlock()
	return p.platform.NewBackupKey(s)
}

// keyHolder is a set whose keys are changed, for as long as nobody else works on the plane.
func (p *Plane) keyHolder(ctx context.Context, name string) (platform.Set, func(), error) {
	if !state.Exists(p.Settings.Home) {
		return platform.Set{}, nil, fault.New(fault.NotFound, "there is no plane in %s: A3_HOME names a plane's directory", p.Settings.Home)
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return platform.Set{}, nil, err
	}
	s := p.own
	if err = errors.Join(p.whereBackupsAre(), p.openState()); err == nil && name != p.own.Name() {
		if s, err = p.set(name); err == nil {
			err = p.staysHere(ctx, s)
		}
	}
	if err != nil {
		unlock()
		return s, nil, err
	}
	return s, unlock, nil
}
