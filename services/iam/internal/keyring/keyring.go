// Package keyring keeps the tenant's signing keys: made at first start, at rest only sealed under the tenant's key-encryption key,
// and published before they sign and for as long after as a token may live. It promises that the private half leaves the process only
// sealed and that a sealed key is worth nothing under another tenant or another key id. It relies on the platform for the
// key-encryption key, and on PostgreSQL for one current key at a time.
package keyring

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/authn"
	"a3os.app/libs/awskms"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/store"
)

const (
	// Algorithm is the only one that this issuer signs with.
	Algorithm = "ES256"
	// RotateEvery is how long a key signs before the next one does.
	RotateEvery = 30 * 24 * time.Hour
	// PublishBefore is how long a key is published before it signs: longer than any service of the set serves reads without word of it.
	PublishBefore = time.Minute
	// publishAfter is how long a key that no longer signs is published: longer than any token lives that it signed.
	publishAfter = authn.MaxLifetime + 5*time.Minute
)

// Signer is the key that signs now.
type Signer struct {
	// KeyID is its `kid`.
	KeyID string
	// Key is its private half.
	Key *ecdsa.PrivateKey
}

// Ring is the tenant's signing keys. It is safe for concurrent use.
type Ring struct {
	db     *pg.DB
	tenant id.Tenant
	kek    *KEK
	now    func() time.Time
	state  atomic.Pointer[state]

	generation atomic.Uint64
}

type state struct {
	signer Signer
	public map[string]authn.Key
	set    jose.JSONWebKeySet
	// opened are the private halves by id, with what each was opened from.
	opened map[string]opened
}

type opened struct {
	Signer
	sealed []byte
}

// Open reads the keys, and makes the first ones where there are none. db is role_iam_tenant's.
func Open(ctx context.Context, db *pg.DB, tenant id.Tenant, kek *KEK, now func() time.Time) (*Ring, error) {
	r := &Ring{db: db, tenant: tenant, kek: kek, now: now}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Signer is the key that signs now.
func (r *Ring) Signer() Signer { return r.state.Load().signer }

// KeySet is what the issuer publishes: the key that signs, the one that will, and those that signed what still lives.
func (r *Ring) KeySet() jose.JSONWebKeySet { return r.state.Load().set }

// Key answers a published key by id, and fails for one that isn't: it makes the ring an authn.KeySource.
func (r *Ring) Key(_ context.Context, kid string) (authn.Key, error) {
	k, ok := r.state.Load().public[kid]
	if !ok {
		return authn.Key{}, errors.New("the issuer has no such key")
	}
	return k, nil
}

// Generation grows when the published keys change.
func (r *Ring) Generation() uint64 { return r.generation.Load() }

// IDs are the ids of all published keys, sorted.
func (r *Ring) IDs() []string { return slices.Sorted(maps.Keys(r.state.Load().public)) }

// Maintain rotates the keys when their time has come, drops those that nothing living was signed with, and takes up what another
// process of this issuer changed.
func (r *Ring) Maintain(ctx context.Context) error { return r.load(ctx) }

func (r *Ring) load(ctx context.Context) error {
	var loaded *state
	err := r.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if err := q.LockSigningKeys(ctx); err != nil {
			return err
		}
		rotated, err := r.settle(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.SigningKeys(ctx)
		if err != nil {
			return err
		}
		if loaded, err = r.read(ctx, q, rows); err != nil || !rotated {
			return err
		}
		return record.AppendUnknown(ctx, tx, "workload:iam", record.Event{
			Action: "iam.signing_keys.rotated", Target: loaded.signer.KeyID, Reason: "the key before has signed for its time", After: Describe(rows),
		})
	})
	if err != nil {
		return fmt.Errorf("keep the signing keys: %w", err)
	}
	before := r.state.Swap(loaded)
	if before == nil || !slices.Equal(slices.Sorted(maps.Keys(before.public)), slices.Sorted(maps.Keys(loaded.public))) {
		r.generation.Add(1)
	}
	return nil
}

// settle brings the stored keys to where they should be: one current, one next, none that is of no use any more.
func (r *Ring) settle(ctx context.Context, q *store.Queries) (rotated bool, err error) {
	rows, err := q.SigningKeys(ctx)
	if err != nil {
		return false, err
	}
	now := r.now()
	current, next := find(rows, "current"), find(rows, "next")
	due := current != nil && current.ActivatedAt != nil && now.Sub(*current.ActivatedAt) >= RotateEvery
	if due && next != nil && now.Sub(next.CreatedAt) >= PublishBefore {
		if err := r.promote(ctx, q, now); err != nil {
			return false, err
		}
		rotated, next = true, nil
	}
	if err := r.fill(ctx, q, current, next, now); err != nil {
		return false, err
	}
	_, err = q.DropRetiredKeys(ctx, now.Add(-publishAfter))
	return rotated, err
}

// fill makes the keys that are missing.
func (r *Ring) fill(ctx context.Context, q *store.Queries, current, next *store.SigningKey, now time.Time) error {
	if current == nil {
		if err := r.add(ctx, q, "current", &now); err != nil {
			return err
		}
	}
	if next == nil {
		return r.add(ctx, q, "next", nil)
	}
	return nil
}

func find(rows []store.SigningKey, state string) *store.SigningKey {
	for i := range rows {
		if rows[i].State == state {
			return &rows[i]
		}
	}
	return nil
}

func (r *Ring) promote(ctx context.Context, q *store.Queries, now time.Time) error {
	if err := q.RetireCurrentKey(ctx, now); err != nil {
		return err
	}
	_, err := q.ActivateNextKey(ctx, now)
	return err
}

func (r *Ring) add(ctx context.Context, q *store.Queries, state string, activated *time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	kid, spki, err := describe(&key.PublicKey)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the signing key: %w", err)
	}
	sealed, err := r.kek.EncryptWithContext(ctx, raw, r.bound(kid))
	if err != nil {
		return fmt.Errorf("seal the signing key: %w", err)
	}
	return q.AddSigningKey(ctx, store.AddSigningKeyParams{Kid: kid, Sealed: sealed, PublicKey: spki, State: state, ActivatedAt: activated})
}

// bound is what a sealed key is tied to: taken to another row or another tenant's database it does not open.
func (r *Ring) bound(kid string) []byte {
	return []byte("a3os signing key\x00" + r.tenant.String() + "\x00" + kid)
}

func (r *Ring) read(ctx context.Context, q *store.Queries, rows []store.SigningKey) (*state, error) {
	s := &state{public: map[string]authn.Key{}, opened: map[string]opened{}}
	for _, row := range rows {
		public, err := ParsePublic(row.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("read signing key %s: %w", row.Kid, err)
		}
		if row.State != "previous" { // which signs no more: its private half is of no use to anybody
			o, err := r.open(ctx, q, row, public)
			if err != nil {
				return nil, err
			}
			s.opened[row.Kid] = o
			if row.State == "current" {
				s.signer = o.Signer
			}
		}
		s.public[row.Kid] = authn.Key{Algorithm: Algorithm, Public: public}
		s.set.Keys = append(s.set.Keys, jose.JSONWebKey{KeyID: row.Kid, Algorithm: Algorithm, Use: "sig", Key: public})
	}
	if s.signer.Key == nil {
		return nil, errors.New("no signing key is current")
	}
	return s, nil
}

// open opens a key, and seals it again where that was done under an earlier key-encryption key. What it opened before it doesn't open again:
// a key service is asked when something is new, and not whenever somebody looks.
func (r *Ring) open(ctx context.Context, q *store.Queries, row store.SigningKey, public *ecdsa.PublicKey) (opened, error) {
	if held := r.state.Load(); held != nil {
		if o, is := held.opened[row.Kid]; is && bytes.Equal(o.sealed, row.Sealed) && o.Key.PublicKey.Equal(public) {
			return o, nil
		}
	}
	raw, old, err := r.kek.open(ctx, row.Sealed, r.bound(row.Kid))
	if errors.Is(err, awskms.ErrNotUnder) {
		return opened{}, fmt.Errorf("signing key %s does not open with this key-encryption key, or belongs to another tenant: check A3_KEK and A3_KMS_KEY", row.Kid)
	}
	if err != nil {
		return opened{}, fmt.Errorf("open signing key %s: %w: check A3_KMS_KEY, and what this role may", row.Kid, err)
	}
	if old {
		sealed, err := r.kek.EncryptWithContext(ctx, raw, r.bound(row.Kid))
		if err != nil {
			return opened{}, fmt.Errorf("seal the signing key again: %w", err)
		}
		row.Sealed = sealed
		if err := q.SealAgain(ctx, store.SealAgainParams{Kid: row.Kid, Sealed: sealed}); err != nil {
			return opened{}, fmt.Errorf("seal the signing key again: %w", err)
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return opened{}, fmt.Errorf("read signing key %s: %w", row.Kid, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(public) {
		return opened{}, fmt.Errorf("signing key %s is not the one that is published under its id", row.Kid)
	}
	return opened{Signer{KeyID: row.Kid, Key: key}, row.Sealed}, nil
}

// ParsePublic reads SubjectPublicKeyInfo, DER. It fails for anything but ECDSA P-256.
func ParsePublic(spki []byte) (*ecdsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key is not ECDSA P-256")
	}
	return key, nil
}

// KeyID is the id of a public key: its thumbprint (RFC 7638), base64url.
func KeyID(key *ecdsa.PublicKey) (string, error) {
	jwk := jose.JSONWebKey{Key: key}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("make the key's thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

func describe(key *ecdsa.PublicKey) (kid string, spki []byte, err error) {
	if kid, err = KeyID(key); err != nil {
		return "", nil, err
	}
	if spki, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return "", nil, fmt.Errorf("encode the public key: %w", err)
	}
	return kid, spki, nil
}
