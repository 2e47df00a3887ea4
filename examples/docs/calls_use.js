const shop = new Calls("ws://127.0.0.1:8000/shop");

async function order(article, count) {
  try {
    const placed = await shop.call({ type: "order", article, count }, { timeout: 5 });
    return `order ${placed.number}, ${placed.left} left`;
  } catch (error) {
    if (error.code === "sold_out") return `only ${error.data.left} left`;
    throw error;
  }
}
