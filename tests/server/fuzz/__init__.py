"""Any bytes in any chunking, against a strict model of RFC 6455 and RFC 7692 and against other libraries."""
