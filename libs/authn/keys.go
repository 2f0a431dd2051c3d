package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"a3os.app/libs/fault"
)

// Key is a public key and the one algorithm it is for.
type Key struct {
	// Algorithm is `ES256` or `EdDSA`.
	Algorithm string
	// Public verifies.
	Public crypto.PublicKey
}

// KeySource answers an issuer's keys.
type KeySource interface {
	// Key answers the key with an id. It fails for an id the issuer doesn't have.
	Key(ctx context.Context, kid string) (Key, error)
	// Generation grows when the set of keys changes, so that what was verified with a key that is gone isn't believed on.
	Generation() uint64
}

const (
	// refetchAfter bounds how often unknown key ids can make us ask the issuer.
	refetchAfter = 5 * time.Second
	// refreshEvery is how long a removed key lives on at most while the issuer answers.
	refreshEvery = time.Minute
	fetchWithin  = 3 * time.Second
	// maxKeySetBytes is room for a hundred keys and more.
	maxKeySetBytes = 64 << 10
)

// RemoteKeys are keys fetched from the issuer's key set, kept while it can't be reached.
type RemoteKeys struct {
	fetch func(ctx context.Context) ([]byte, error)
	now   func() time.Time
	group singleflight.Group
	gen   atomic.Uint64
	news  chan struct{}

	mu      sync.RWMutex
	keys    map[string]Key
	raw     string
	fetched time.Time
	tried   time.Time
}

// NewRemoteKeys makes a key source over fetch, which answers a JSON Web Key Set (RFC 7517). A nil now is the machine's clock.
func NewRemoteKeys(fetch func(ctx context.Context) ([]byte, error), now func() time.Time) *RemoteKeys {
	if now == nil {
		now = time.Now
	}
	return &RemoteKeys{fetch: fetch, now: now, news: make(chan struct{}, 1)}
}

// Generation grows with every change of the set.
func (r *RemoteKeys) Generation() uint64 { return r.gen.Load() }

// Key answers a key by id. An unknown id has the set fetched again, at most once an interval however many ask.
func (r *RemoteKeys) Key(ctx context.Context, kid string) (Key, error) {
	r.mu.RLock()
	k, ok := r.keys[kid]
	never, stale := r.fetched.IsZero(), r.now().Sub(r.fetched) > refreshEvery
	mayAsk := r.now().Sub(r.tried) > refetchAfter
	r.mu.RUnlock()
	if ok && !stale {
		return k, nil
	}
	if mayAsk || never {
		if err := r.refresh(ctx, never); err != nil && !ok {
			return Key{}, fault.Wrap(fault.Unavailable, err, "the issuer's keys can't be had now; try again shortly")
		}
		r.mu.RLock()
		k, ok = r.keys[kid]
		r.mu.RUnlock()
	}
	if !ok {
		return Key{}, errors.New("the issuer has no such key")
	}
	return k, nil
}

// Follow keeps the set up to date until ctx ends. Callers whose tokens are cached ask for no key, so without it a removed key
// would be believed for as long as its tokens live.
func (r *RemoteKeys) Follow(ctx context.Context) {
	t := time.NewTicker(refreshEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-r.news:
		}
		if err := r.refresh(ctx, true); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the issuer's keys can't be had, the last good ones stay", "error", err)
		}
	}
}

// Announced takes in which keys the issuer says that it publishes now. Those that it has dropped are believed no more from here on,
// also where the rest can't be fetched; Follow fetches those that are new, the first ones before anybody shows a token, which may be when
// the issuer is away. It says whether a key was dropped. None at all is taken for
// an issuer that does not say.
func (r *RemoteKeys) Announced(ids []string) (dropped bool) {
	if len(ids) == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string]Key{}
	for _, id := range ids {
		if k, ok := r.keys[id]; ok {
			kept[id] = k
		}
	}
	if len(kept) < len(ids) {
		select {
		case r.news <- struct{}{}:
		default: // it is on its way
		}
	}
	if dropped = len(kept) < len(r.keys); dropped {
		// What was fetched is no longer what is kept: the same set fetched again counts as new.
		r.keys, r.raw = kept, ""
		r.gen.Add(1)
	}
	return dropped
}

// Refresh fetches the set now: the issuer said that it changed.
func (r *RemoteKeys) Refresh(ctx context.Context) error { return r.refresh(ctx, true) }

func (r *RemoteKeys) refresh(ctx context.Context, force bool) error {
	_, err, _ := r.group.Do("keys", func() (any, error) {
		r.mu.RLock()
		justTried := r.now().Sub(r.tried) <= refetchAfter
		r.mu.RUnlock()
		if justTried && !force {
			return nil, nil
		}
		// One caller who gives up must not fail the others who wait.
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWithin)
		defer cancel()
		raw, err := r.fetch(fctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tried = r.now()
		if err != nil {
			return nil, err
		}
		keys, err := ParseKeySet(raw)
		if err != nil {
			return nil, err
		}
		r.fetched = r.now()
		if string(raw) != r.raw {
			r.keys, r.raw = keys, string(raw)
			r.gen.Add(1)
		}
		return nil, nil
	})
	return err
}

// ParseKeySet reads a JSON Web Key Set of at most 64 KiB. Keys that are not ES256 or EdDSA signature keys are left out; none left
// is an error, and so are two with one id.
func ParseKeySet(raw []byte) (map[string]Key, error) {
	if len(raw) > maxKeySetBytes {
		return nil, fmt.Errorf("the issuer's key set has more than %d bytes", maxKeySetBytes)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("read the issuer's key set: %w", err)
	}
	keys := map[string]Key{}
	for _, k := range set.Keys {
		if k.KeyID == "" || (k.Use != "" && k.Use != "sig") || !k.IsPublic() {
			continue
		}
		if _, twice := keys[k.KeyID]; twice {
			return nil, fmt.Errorf("the issuer's key set holds two keys with the id %q", k.KeyID)
		}
		switch p := k.Key.(type) {
		case *ecdsa.PublicKey:
			if p.Curve.Params().Name == "P-256" && (k.Algorithm == "" || k.Algorithm == "ES256") {
				keys[k.KeyID] = Key{Algorithm: "ES256", Public: p}
			}
		case ed25519.PublicKey:
			if k.Algorithm == "" || k.Algorithm == "EdDSA" {
				keys[k.KeyID] = Key{Algorithm: "EdDSA", Public: p}
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the issuer's key set holds no ES256 or EdDSA key")
	}
	return keys, nil
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }
