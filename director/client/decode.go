package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DecodeRegistration reads the body of a registration: one JSON object, no
// field unknown, nothing after it. Errors of body itself are returned wrapped.
func DecodeRegistration(body io.Reader) (Registration, error) {
	var r Registration
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Registration{}, fmt.Errorf("the registration cannot be read: %w", plain(err))
	}
	if _, err := dec.Token(); err == nil || !errors.Is(err, io.EOF) {
		var syntax *json.SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			return Registration{}, fmt.Errorf("the registration cannot be read: %w", err)
		}
		return Registration{}, errors.New("the registration cannot be read: more follows after its end")
	}
	return r, nil
}

// plain says in words of the wire, not of Go, what encoding/json found.
func plain(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends too early")
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s cannot be a JSON %s", wrong.Field, wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("want a JSON object, got %s", wrong.Value)
	}
	if text, ok := strings.CutPrefix(err.Error(), "json: "); ok {
		return errors.New(text)
	}
	return err
}
