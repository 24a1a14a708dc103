// Package dbusjson writes D-Bus values as JSON and reads them back without
// loss, reads introspection data, and makes JSON Schemas of it. It knows no
// bus: values are those of this package, typed by a signature.
//
// JSON is typed from outside: the same text means another value under another
// signature. The forms (D-Bus Specification 0.42, "Type System"):
//
//	y n q i u   a number
//	x t         a decimal string; a number is read too
//	b           true or false
//	d           a number; "Infinity", "-Infinity", "NaN", and "NaN:" with the
//	            16 hex digits of a NaN that is not the usual one
//	s o g       a string
//	v           {"t":"u","v":7}; a bare string or boolean is read too
//	ay          {"b64":"AAE="}; an array of numbers is read too
//	a?          an array
//	a{s?}       an object, also for keys o and g; an array of [key,value] if a
//	            key stands twice
//	a{??}       an array of [key,value]
//	(...)       an array
//	h           {"fd":0,"kind":"pipe"}: a summary, which can't be read back
//
// Marshal of what Unmarshal has read is the same for every text of one value,
// so that its bytes can be hashed. What D-Bus can't carry (a zero byte or half
// a surrogate pair in a string, a number out of range, nesting deeper than 64)
// is refused.
//
// Compatibility: these forms are promised; kinds of descriptors may be added.
package dbusjson
