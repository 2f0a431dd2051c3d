package blob

import (
	"context"
	"errors"
	"io"
)

// BoundedReader reads content for a driver's Put. It fails, rather than ends, past a bound: a cut object would look like a whole one.
type BoundedReader struct {
	ctx  context.Context //nolint:containedctx // it lives as long as one Put
	from io.Reader
	most int64
	read int64
	err  error
}

// Bounded reads at most so many bytes, for as long as ctx lasts.
func Bounded(ctx context.Context, from io.Reader, most int64) *BoundedReader {
	return &BoundedReader{ctx: ctx, from: from, most: most}
}

// Read implements io.Reader.
func (r *BoundedReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.read += int64(n)
	switch {
	case r.ctx.Err() != nil:
		err = r.ctx.Err()
	case r.read > r.most:
		err = ErrTooLarge.With("the object has more than %d bytes, which is the bound", r.most)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Err is why reading failed, whatever whoever read made of it; nil where it didn't.
func (r *BoundedReader) Err() error { return r.err }
