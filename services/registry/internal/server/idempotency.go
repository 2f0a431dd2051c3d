package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	"a3os.app/libs/pg"
	"a3os.app/services/registry/internal/store"
)

const (
	// keyMetadata carries the idempotency key of a creating call.
	keyMetadata = "idempotency-key"
	maxKey      = 128
)

// idempotencyKey is the caller's key; empty where there is none.
func idempotencyKey(ctx context.Context) (string, error) {
	keys := metadata.ValueFromIncomingContext(ctx, keyMetadata)
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKey:
		return "", fault.New(fault.InvalidArgument, "%s: give one key of 1 to %d characters", keyMetadata, maxKey)
	}
	return keys[0], nil
}

// once runs fn, unless this actor used the key for this method before: then res becomes the first result. Concurrent calls with
// one key wait for each other at the insert. (pg.Deed does the same for tenants' services; its keys belong to a tenant's scope.)
func (ch change) once(ctx context.Context, method, key string, req, res proto.Message, fn func() error) error {
	if key == "" {
		return fn()
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	digest := sha256.Sum256(raw)
	claimed, err := ch.q.ClaimKey(ctx, store.ClaimKeyParams{Actor: ch.actor, Method: method, Key: key, RequestDigest: digest[:]})
	if err != nil {
		return fmt.Errorf("claim the idempotency key: %w", err)
	}
	if claimed == 0 {
		return ch.first(ctx, method, key, digest, res)
	}
	if err := fn(); err != nil {
		return err
	}
	kept, err := proto.Marshal(res)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if err := ch.q.KeepResult(ctx, store.KeepResultParams{Actor: ch.actor, Method: method, Key: key, Response: kept}); err != nil {
		return fmt.Errorf("keep the first result: %w", err)
	}
	return nil
}

func (ch change) first(ctx context.Context, method, key string, digest [sha256.Size]byte, res proto.Message) error {
	row, err := ch.q.FirstResult(ctx, store.FirstResultParams{Actor: ch.actor, Method: method, Key: key})
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.Aborted, "another call with this idempotency key is under way; try again")
	}
	if err != nil {
		return fmt.Errorf("read the first result: %w", err)
	}
	if string(row.RequestDigest) != string(digest[:]) {
		return pg.ErrKeyReused
	}
	return proto.Unmarshal(row.Response, res)
}
